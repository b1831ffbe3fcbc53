"""Measurements: the evaluator (Dice and latency), and the speed of gate, training and data."""
