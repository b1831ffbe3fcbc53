"""Search for files of a source by their content, for a store that does not contain their names."""

import functools
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from attunet.errors import InputError
from attunet.io.pictures.annotations import ANNOTATION_SUFFIXES
from attunet.sources.case_files import content_hash, regular_files, walk, without_names


@functools.lru_cache(maxsize=2)  # an evaluation reads case after case
def files_by_hash(root: Path) -> Mapping[str, tuple[Path, ...]]:
    """Every file below a folder, and every folder with files in it, by its `content_hash`."""
    paths: dict[str, tuple[Path, ...]] = {}
    for path in (*regular_files(root), *(folder for folder, _, files in walk(root) if files)):
        with suppress(InputError):  # an unreadable file that belongs to no case; its name stays hidden
            digest = content_hash(path)
            paths[digest] = (*paths.get(digest, ()), path)
    return paths


def find_by_hash(root: Path, wanted: Mapping[str, str]) -> dict[str, Path]:
    """Find the files with these contents anywhere below a folder. wanted: name in a store -> `content_hash`. Raises
    InputError if no file has a content, or several have it and the content does not show which belongs to the case.
    """
    with without_names(root, True, "its folders cannot be listed; `attunet inspect` on it says why"):
        known = files_by_hash(root.resolve())
    paths_of = {name: known.get(digest, ()) for name, digest in wanted.items()}
    if missing := [name for name, paths in paths_of.items() if not paths]:
        digest = wanted[missing[0]][:12]
        raise InputError(f"{missing[0]}: no file below {root} has its SHA-256 {digest}...; was it changed or moved?")
    # Annotations name pictures beside them: the same content may stand for several cases.
    by_name = any(path.name.lower().endswith(ANNOTATION_SUFFIXES) for paths in paths_of.values() for path in paths)
    if by_name and (twice := [name for name, paths in paths_of.items() if len(paths) > 1]):
        count = f"{len(paths_of[twice[0]])} files below {root} have its content"
        raise InputError(f"{twice[0]}: {count}, so the case's own is unknown")
    return {name: paths[0] for name, paths in paths_of.items()}
