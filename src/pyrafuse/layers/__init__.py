"""Modules that know no pyramid: convolutions, pooling, drop-out, deformable sampling."""
