"""The origin of a label map, and the files that were written with it, in a hidden file beside it.

By this file a call tells the label maps that it has finished, the files that belong to them, and what it may replace.
"""

import hashlib
import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from attunet.decisions import RULES, Choices, Decision
from attunet.errors import InputError
from attunet.fields import Fields, JsonObject, parse_json, read_json
from attunet.io.dicom.organ_codes import Code
from attunet.io.dicom.segmentation import check_segmentation_file
from attunet.io.dicom.series import series_files
from attunet.io.readers import FORMATS, format_of, read_volume, stem_of
from attunet.io.writers import WRITERS
from attunet.sources.case_files import content_hash, files_in
from attunet.sources.input import Input
from attunet.system.atomic_files import joined_hash, sha256, write_text
from attunet.system.outputs import require_other_file

logger = logging.getLogger(__name__)

REMEDY = "move it elsewhere, or choose another place"
TABLES = ("confidence.json", "confidence.csv")  # of a folder of label maps


@dataclass(frozen=True)
class Origin:
    """Model, scan and interpretations that a label map is made of."""

    model_sha256: str
    scan_sha256: str  # by `hash_of_files`
    choices: Choices = field(default_factory=dict)  # the user's interpretations of the scan, by rule
    rules: Sequence[str] | None = None  # those of choices about the scan, by `rules_about`; None: not known
    codes: Mapping[str, Code] = field(default_factory=dict)  # the user's, of a DICOM SEG

    def check_scan(self, files: Sequence[Path]) -> None:
        """Raises InputError where the scan has another hash by now: it is not known which of both was segmented."""
        if hash_of_files(files) != self.scan_sha256:
            raise InputError(f"{files[0]}: was changed while it was read: call again when it is whole")

    def to_json(self) -> JsonObject:
        """All fields; of choices those about the scan, a text of the user's as its hash, since it may have a name."""
        choices = {
            rule: value if RULES[rule].choices else hashlib.sha256(value.encode()).hexdigest()
            for rule, value in self.choices.items()
            if self.rules is None or rule in self.rules
        }
        content: JsonObject = parse_json(json.dumps({**asdict(self), "choices": choices}))
        return content

    def write(self, hidden: Path, files: Collection[Path], record: str | None = None) -> None:
        """Write a label map's hidden file; `files` are all of the case, `record` is the hash of its audit record."""
        content = {**self.to_json(), "files": {path.name: sha256(path) for path in files}, "record": record}
        write_text(hidden, json.dumps(content, sort_keys=True) + "\n")


def origin_of(scan: Input, model_sha256: str, codes: Mapping[str, Code] | None = None) -> Origin:
    """Raises InputError where the scan's files cannot be read."""
    return Origin(model_sha256, hash_of_files(scan.files), scan.choices, codes=codes or {})


def rules_about(scan: Input, decisions: Sequence[Decision]) -> list[str]:
    """The rules by which a scan may be read otherwise: of its decisions, and those of its format that note nothing."""
    formats = [format_of(file) for file in scan.files]
    silent = [rule for rule in RULES if rule.startswith("dicom-")] if FORMATS[-1] in formats else []
    silent += ["exif-orientation"] if any(".png" in format.suffixes for format in formats) else []
    return [*(decision.rule for decision in decisions), *silent]


def is_finished(
    labels: Path,
    scan: Input,
    model_sha256: str,
    codes: Mapping[str, Code] | None = None,
    files: Collection[Path] = (),
    records: Collection[str] | None = None,
) -> bool:
    """True where the scan's label map is there with all that a call asks for; False for a scan that is refused when it
    is read. One that somebody has corrected is finished too, whatever the call asks for, so that it stays. Raises
    InputError where the label map is of another model, scan or interpretation, is damaged, or nothing says what it is.

    Args:
        files: that were written with it.
        records: hashes of the records of an audit log, which must have one of it.

    Example:
        >>> is_finished(labels, scan, model.sha256, files=[map_file(labels, "uncertainty")])  # doctest: +SKIP
    """
    if scan.is_refused or not labels.exists():
        return False
    before = _written(labels)
    if before.data.get("model_sha256") != model_sha256:
        raise InputError(f"{labels}: was made by another model: {REMEDY}")
    origin = origin_of(scan, model_sha256, codes)
    rules = before.text_list("rules") if before.data.get("rules") is not None else None
    now = replace(origin, rules=rules).to_json()
    if wrong := [name for name, value in now.items() if before.data.get(name) != value]:
        of = {"choices": "by another --read or --series", "codes": "with other --codes"}
        raise InputError(f"{labels}: was made {of.get(wrong[0], f'of another scan than {scan.files[0]}')}: {REMEDY}")
    if not unchanged(labels):
        _check_readable(labels)
        logger.warning(f"{labels}: was changed since it was made, and stays as it is")
        return True
    return unchanged(labels, *files) and (records is None or before.data.get("record") in records)


def _written(labels: Path) -> Fields:
    """The hidden file of a label map that is there. Raises InputError where it is missing or damaged."""
    if not origin_file(labels).exists():
        raise InputError(f"{labels}: is there, and no file says which model and scan it is of: {REMEDY}")
    at = read_json(origin_file(labels))
    if "files" not in at:
        raise InputError(f"{labels}: was made by another version of attunet: {REMEDY}")
    return at


def _check_readable(labels: Path) -> None:
    """Raises InputError for a label map that was cut short or damaged."""
    try:
        if labels.name.lower().endswith(".dcm"):
            check_segmentation_file(labels)
        else:
            read_volume(labels)
    except InputError as error:
        raise InputError(f"{labels}: was changed since it was made, and is damaged: {REMEDY} ({error})") from None


def check_place(labels: Path, scan: Sequence[Path] = ()) -> None:
    """Raises InputError where a label map would replace a file of its scan, or none of this program as it wrote it."""
    require_other_file(labels, scan)
    if labels.exists():
        _written(labels)
        if not unchanged(labels):
            raise InputError(f"{labels}: was changed since it was made: {REMEDY}")


def check_alike(labels: Path, origin: Origin, files: Collection[Path]) -> None:
    """Raises InputError where the label map of another scan or model differs in its ending alone, and one of the two
    has `files` beside it: they would have the names of both.
    """
    for other in same_stem(labels):
        if other != labels and other.exists() and (files or len(hashes_of(other)) > 1) and origin_file(other).exists():
            before = read_json(origin_file(other)).data
            if (before.get("model_sha256"), before.get("scan_sha256")) != (origin.model_sha256, origin.scan_sha256):
                raise InputError(f"{other}: is of another scan or model than {labels.name} will be: {REMEDY}")


def same_stem(labels: Path) -> list[Path]:
    """The label maps whose names differ in their ending alone; their maps and estimates have the same names."""
    return [labels.with_name(f"{stem_of(labels)}{ending}") for ending in (*WRITERS, ".dcm")]


def unchanged(labels: Path, *files: Path) -> bool:
    """True where the label map, and these files beside it, are as they were written together."""
    hashes = hashes_of(labels)
    with suppress(FileNotFoundError):  # another process has just taken it away
        return all(path.is_file() and sha256(path) == hashes.get(path) for path in (labels, *files))
    return False


def label_maps_of(folder: Path, model_sha256: str) -> Iterator[Path]:
    """The label maps of a model below a folder, in which other processes make and remove hidden folders."""
    files = ((place, name) for place, _, names in os.walk(folder) for name in names)
    for file in sorted(Path(place, name) for place, name in files if name.startswith(".") and name.endswith(".json")):
        labels = file.with_name(file.name.removeprefix(".").removesuffix(".json"))
        with suppress(InputError):  # a file of something else, or that another process has just taken away
            if labels.exists() and read_json(file).data.get("model_sha256") == model_sha256:
                yield labels


def check_tables(folder: Path, model_sha256: str) -> None:
    """Raises InputError where a folder's tables are of another model's label maps, or files of somebody else."""
    for name in TABLES:
        if (folder / name).exists() and _model_of_tables(folder) != model_sha256:
            raise InputError(f"{folder / name}: is there, and is no table of this model's label maps: {REMEDY}")


def clear_tables(folder: Path, model_sha256: str) -> None:
    """Remove a folder's tables if they are of this model's label maps, which have changed, or of none that is there."""
    of = _model_of_tables(folder)
    if of is not None and (of == model_sha256 or next(label_maps_of(folder, of), None) is None):
        for name in reversed(TABLES):  # the JSON says whose they are
            (folder / name).unlink(missing_ok=True)


def tables_list(folder: Path, labels: Path) -> bool:
    """True where a folder's tables have the estimates of a label map below it; they may be a copy of others."""
    case = labels.absolute().relative_to(folder).with_name(stem_of(labels)).as_posix()
    with suppress(InputError, OSError):  # no tables, a file of somebody else, or a folder that nobody may look into
        return case in read_json(folder / TABLES[0]).inner("cases").data
    return False


def _model_of_tables(folder: Path) -> str | None:
    with suppress(InputError):  # no tables, or a file of somebody else
        return read_json(folder / TABLES[0]).text("model_sha256")
    return None


def hashes_of(labels: Path) -> dict[Path, str]:
    """The SHA-256 of the label map and of the files beside it that its hidden file names."""
    with suppress(InputError):  # none, or a damaged one, which names no files
        return {
            labels.with_name(name): digest
            for name, digest in read_json(origin_file(labels)).texts("files").items()
            if name == labels.name or (name.startswith(f"{stem_of(labels)}-") and Path(name).name == name)
        }
    return {}


def hash_of_files(paths: Sequence[Path]) -> str:
    """SHA-256 of a scan: of its file (and the one beside it with its voxels), or of the hashes of its channels in their
    order. Of a DICOM series, it is the one of its files' sorted hashes: their names do not count, nor other files of
    the folder. Raises InputError where a file cannot be read.
    """
    return joined_hash([_hash_of_folder(path) if path.is_dir() else content_hash(path) for path in paths])


def origin_file(labels: Path) -> Path:
    """The hidden file of a label map."""
    return labels.with_name(f".{labels.name}.json")


def _hash_of_folder(folder: Path) -> str:
    slices: Sequence[Path] = ()
    with suppress(InputError):  # the reader says what is wrong
        slices = series_files(folder)
    return joined_hash(sorted(map(content_hash, slices or files_in(folder))))
