"""Volumes, their geometry and intensities, network input and prediction."""
