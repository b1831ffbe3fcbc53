"""Outputs that a command may write: a result takes the place of an older one of its own kind alone."""

from pathlib import Path
from typing import Literal

from attunet.errors import InputError
from attunet.fields import read_json

Product = Literal["a store", "a run", "an evaluation", "a cross-validation", "label maps"]


def require_ending(path: Path, *endings: str) -> None:
    """Raises InputError for a file of another type, which the output would replace: a model, a manifest, a scan."""
    if not path.name.lower().endswith(endings):
        raise InputError(f"{path}: must be a file name that ends in {' or '.join(endings)}")


def require_own_folder(out: Path, own: Product) -> None:
    """Raises InputError where a folder is a file, or holds another product than `own`."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: must be a folder, or nothing yet")
    if (held := _held(out)) not in ("", own):
        raise InputError(f"{out}: holds {held}; name another folder for {own}")


def _held(folder: Path) -> str:
    results = folder / "results.json"
    if (folder / "manifest.json").exists():
        return "a store"
    if (folder / "checkpoints").exists():
        return "a run"
    if not results.exists():
        return ""
    data = read_json(results).data
    if "schema" in data and "methods" in data:
        return "a cross-validation"
    return "an evaluation" if "schema" in data and "models" in data else f"a {results.name} of something else"
