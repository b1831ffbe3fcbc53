"""One self-contained HTML page of an evaluation or a cross-validation."""
