"""File layouts of sources, one module each."""
