"""Names of files from names of models and cases."""

import re


def file_name(label: str) -> str:
    """A label without what a file's name should not hold."""
    return re.sub(r"[^A-Za-z0-9.=@+-]+", "_", label).strip("_.") or "model"
