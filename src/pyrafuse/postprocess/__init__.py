"""Decoding, threshold and suppression: predictions -> detections."""
