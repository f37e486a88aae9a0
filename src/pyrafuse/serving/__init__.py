"""Detectors over HTTP: requests, batches of them, answers, and the server that keeps them within limits."""
