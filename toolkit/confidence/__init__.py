"""Estimates of Dice without a reference, calibration of probabilities, and maps of uncertainty."""
