"""A user's files: which of them make a case, and how label values become classes."""
