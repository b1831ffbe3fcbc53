"""Evaluation of models on a store: accuracy and speed."""
