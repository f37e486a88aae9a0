"""Detectors by name: one file a family, each model a description on one page; free of torch."""
