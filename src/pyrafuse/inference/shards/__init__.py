"""Predictions on very many images, in shards that are whole or not there, so that the same command goes on."""
