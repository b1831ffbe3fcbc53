"""The backends of the attention gate."""
