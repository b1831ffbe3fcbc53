"""Arrays of a store that are not those that were prepared."""

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from attunet.errors import InputError
from attunet.manifest import IMAGE, MANIFEST
from attunet.store import Store
from attunet.system.atomic_files import require_regular, sha256
from attunet.system.workers import usable_cores


def check_sizes(store: Store, cases: Iterable[str]) -> None:
    """Raise InputError for an array that is shorter than the manifest says; no array is read."""
    pixels = math.prod(store.spec.size)
    for name in cases:
        case = store.case(name)
        for file in case.arrays_sha256:
            path = store.folder(name) / file
            needed = case.num_slices * pixels * (2 * store.spec.num_channels if file == IMAGE else 1)
            try:
                require_regular(path)
                there = path.stat().st_size
            except OSError as error:
                raise _unreadable(path, error) from None
            if there < needed:
                slices = f"the {case.num_slices:,} slices that {MANIFEST} says"
                raise InputError(f"{path}: must have {needed:,} bytes for {slices}, got {there:,}")


def verify_case(store: Store, name: str) -> None:
    """Read the arrays of a case. Raises InputError for one that is not, byte for byte, the one that was prepared."""
    for file, expected in store.case(name).arrays_sha256.items():
        path = store.folder(name) / file
        try:
            is_same = sha256(path) == expected
        except OSError as error:
            raise _unreadable(path, error) from None
        if not is_same:
            reason = f"its SHA-256 is not the one in {MANIFEST}"
            raise InputError(
                f"{path}: is not the array that was prepared ({reason}); remove the store and prepare it again"
            )


def damage(store: Store) -> Iterator[InputError]:
    """Read all arrays of a store; yields an error for each case with one that is damaged or of another shape."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        yield from filter(None, pool.map(partial(_error_of, store), [case.name for case in store.cases]))


def _error_of(store: Store, name: str) -> InputError | None:
    try:
        verify_case(store, name)
        store.image(name)  # whose shape must be the manifest's
        if store.case(name).labelled:
            store.label(name)
    except InputError as error:
        return error
    return None


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be read as an array of the store: {error}")
