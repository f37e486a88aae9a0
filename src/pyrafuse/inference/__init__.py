"""Predictions over whole sources: files, folders, videos, cameras, URLs."""
