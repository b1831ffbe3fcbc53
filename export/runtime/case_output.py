"""The files of a case, its label map, maps and estimates: they get their names together."""

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attunet.errors import InputError, RunError
from attunet.export.runtime.origin import (
    REMEDY,
    Origin,
    check_alike,
    check_place,
    clear_tables,
    hashes_of,
    origin_file,
    same_stem,
    tables_list,
)
from attunet.fields import read_json
from attunet.io.readers import stem_of
from attunet.system.atomic_files import sha256, sync, write_error
from attunet.system.private_folder import PrivateFolder


def map_file(labels: Path, kind: str) -> Path:
    """The file of another map of a case, beside its label map."""
    return labels.with_name(f"{stem_of(labels)}-{kind}.nii.gz")


def confidence_file(labels: Path) -> Path:
    """The file of a case's estimates, beside its label map."""
    return labels.with_name(f"{stem_of(labels)}-confidence.json")


class CaseOutput(PrivateFolder):
    """A hidden folder beside a label map, in which the files of its case lie until all are whole."""

    def __init__(self, labels: Path) -> None:
        super().__init__(labels.parent, is_brief=True)
        self._labels = labels

    @property
    def draft(self) -> Path:
        """The label map before it gets its name. The other files lie beside it, with the names that they will have."""
        return self.path / self._labels.name

    def publish(self, origin: Origin, record: str | None = None) -> None:
        """Give all files their names, the label map last, because it marks a case as finished. An earlier label map
        goes first, and what was written with it. `record` is the hash of its record in the audit log. Raises InputError
        where a file of somebody else has one of the names, where the label map was corrected while this one was made,
        and as `check_alike` does.
        """
        files = sorted(self.path.iterdir(), key=lambda file: file == self.draft)
        hidden = self.path / "origin.json"
        origin.write(hidden, files, record)
        with _alone(self._labels.parent):
            beside = [self._labels.with_name(file.name) for file in files[:-1]]
            check_place(self._labels)
            check_alike(self._labels, origin, beside)
            require_own_files(self._labels, beside)
            clear(self._labels)
            os.replace(hidden, origin_file(self._labels))
            for file in files:
                os.replace(file, self._labels.with_name(file.name))
        sync(self._labels.parent)

    @contextmanager
    def errors_by_name(self) -> Iterator[None]:
        """Gives errors the names that the files will have."""
        try:
            yield
        except OSError as error:
            path = Path(self._as_published(str(error.filename or self._labels)))
            raise write_error(path, OSError(error.errno, error.strerror or str(error))) from None
        except (InputError, RunError) as error:
            raise type(error)(self._as_published(str(error))) from None

    def _as_published(self, text: str) -> str:
        return text.replace(str(self.path), str(self._labels.parent))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One thread of one process at a time gives names in a folder, and the others wait; not where a file system cannot
    lock folders.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def require_own_files(labels: Path, files: Collection[Path]) -> None:
    """Raises InputError where a file beside a label map is there and was not written with it."""
    own = {path for one in (labels, *same_stem(labels)) for path in hashes_of(one)}
    if taken := next((path for path in files if path not in own and os.path.lexists(path)), None):
        raise InputError(f"{taken}: is there, and was not written with {labels.name}: {REMEDY}")


def clear(labels: Path) -> None:
    """Remove a label map, then what was written with it, and the tables of its folder and those above that list it."""
    earlier, model = hashes_of(labels), ""
    with suppress(InputError):
        model = read_json(origin_file(labels)).text("model_sha256")
    labels.unlink(missing_ok=True)
    for path, digest in earlier.items():
        if path.is_file() and sha256(path) == digest:
            path.unlink()
            if path.suffix == ".json":
                for folder in labels.absolute().parents:
                    if folder == labels.absolute().parent or tables_list(folder, labels):
                        clear_tables(folder, model)
    origin_file(labels).unlink(missing_ok=True)
