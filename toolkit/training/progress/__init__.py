"""Logs, trackers and timing of a training."""
