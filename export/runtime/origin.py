"""The scan and the model that a label map is made of, in a hidden file beside it.

A folder that is continued holds label maps of earlier calls. By this file a call tells those of the same model and
scan, which are finished, from those of another.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from attunet.decisions import Choices
from attunet.errors import InputError
from attunet.fields import read_json
from attunet.sources.case_files import content_hash
from attunet.sources.inputs import Input
from attunet.system.atomic_files import joined_hash, write_text

REMEDY = "remove it, or choose another folder"


@dataclass(frozen=True)
class Origin:
    """Model, scan and interpretations that a label map is made of.

    Args:
        scan_sha256: hash by `hash_of_files`.
        choices: the user's interpretations of the scan, by rule.
    """

    model_sha256: str
    scan_sha256: str
    choices: Choices = field(default_factory=dict)

    def write(self, labels: Path) -> None:
        """Write the file beside a label map, which is written later."""
        write_text(_file(labels), json.dumps(asdict(self), sort_keys=True) + "\n")


def origin_of(scan: Input, model_sha256: str) -> Origin:
    """Raises InputError where the scan's files cannot be read."""
    return Origin(model_sha256, hash_of_files(scan.files), dict(scan.choices))


def is_finished(labels: Path, scan: Input, model_sha256: str) -> bool:
    """True where the scan's label map is there; False where none is, and for a scan that is refused when it is read.

    Raises:
        InputError: the label map is of another model, scan or interpretation, or nothing says what it is of.
    """
    if scan.is_refused or not labels.exists():
        return False
    if not _file(labels).exists():
        raise InputError(f"{labels}: is there, and no file says which model and scan it is of: {REMEDY}")
    before = read_json(_file(labels)).data
    if before.get("model_sha256") != model_sha256:
        raise InputError(f"{labels}: was made by another model: {REMEDY}")
    if before != asdict(origin_of(scan, model_sha256)):
        raise InputError(f"{labels}: was made of another scan than {scan.files[0]}, or of another --read: {REMEDY}")
    return True


def hash_of_files(paths: Sequence[Path]) -> str:
    """SHA-256 of a scan: of its file (and the one beside it with its voxels), or of the hashes of its channels in their
    order. Of a folder, it is the one of its files' sorted hashes: their names do not count.

    Raises:
        InputError: a file cannot be read.
    """
    return joined_hash([_hash_of_folder(path) if path.is_dir() else content_hash(path) for path in paths])


def _hash_of_folder(folder: Path) -> str:
    return joined_hash(sorted(content_hash(file) for file in folder.rglob("*") if file.is_file()))


def _file(labels: Path) -> Path:
    return labels.with_name(f".{labels.name}.json")
