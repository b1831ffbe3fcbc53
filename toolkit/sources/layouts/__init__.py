"""File layouts of sources, one module for each kind."""
