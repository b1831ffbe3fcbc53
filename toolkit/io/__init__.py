"""File formats: a file to a `Volume` and back."""
