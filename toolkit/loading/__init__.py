"""Batches of a store for training: order, loaders, augmentation."""
