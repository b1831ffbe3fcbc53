"""Accuracy: planned changes of the recipe, each against the plain one on the same left-out cases."""
