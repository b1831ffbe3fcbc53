"""A user's files: their grouping into cases, and the conversion of label values to classes."""
