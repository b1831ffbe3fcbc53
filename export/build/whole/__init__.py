"""A graph from a whole volume to its label map."""
