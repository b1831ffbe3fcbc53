"""The folder of a training: checkpoints, lock, identity, and a trained network read back."""
