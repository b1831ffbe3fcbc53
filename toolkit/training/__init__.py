"""Training: the loop, its steps, validation and progress."""
