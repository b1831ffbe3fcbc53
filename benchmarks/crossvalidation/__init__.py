"""Cross-validation: folds, seeds and models in one table."""
