"""Pixels: from files, cameras and arrays, fitted to the network."""
