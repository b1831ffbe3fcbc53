"""Loaded models, and the queue of scans that wait for them."""
