"""Evaluation of models on a store: Dice and latency."""
