"""A source as cases: the files of each case, before any of them is read, and the options of finding them."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from attunet.classes import Classes
from attunet.decisions import Choices, Decision
from attunet.errors import InputError, TooLittleMemory, one_line
from attunet.io.pictures.annotations import ANNOTATION_SUFFIXES
from attunet.io.readers import files_of, stem_of
from attunet.sources.labels.codings import choose_coding
from attunet.system.atomic_files import joined_hash, sha256

MAX_DEPTH = 100  # of folders within each other


@dataclass(frozen=True)
class SourceOptions:
    """Options of reading a source."""

    layout: str = "auto"  # the name of a layout, or auto
    # The user's own names and values, and the value to ignore, as `parse_classes` gives them
    classes: tuple[Classes, int | None] | None = None
    case_pattern: str | None = None  # a regular expression whose first group, matched in a case's name, is its patient
    # Parts of the names of files that are channels, in their order; all usual ones by default
    images: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()  # parts of the names of the masks to use
    choices: Choices = field(default_factory=dict)


DEFAULTS = SourceOptions()


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """The files of one case."""

    case: str
    patient: str  # all cases of a patient are in one fold
    images: tuple[Path, ...]  # one file for each channel, one file with all channels, or the folder of a DICOM series
    # No file; one mask, or a folder with a mask for each DICOM slice; or several masks, one per object or class
    labels: tuple[Path, ...] = ()
    # Label value of each mask's foreground; empty if the values in the masks are used
    label_values: tuple[int, ...] = ()
    drawn: tuple[str, ...] | None = None  # names of the classes that were drawn; None for all classes
    hidden: bool = False  # True if no text in the files may be quoted, since it may have names


@dataclass(frozen=True)
class Source:
    """A user's folder as cases."""

    root: Path
    layout: str  # its file layout
    reason: str  # the reason for this layout, as a clause
    # Possible codings of the label values, all with the same names; if empty, each value in the masks becomes a class
    codings: tuple[Classes, ...]
    cases: tuple[CaseFiles, ...]
    # For each class of a coding, the range of values that belong to it, for masks that image formats have changed
    grey_ranges: tuple[tuple[int, int], ...] | None = None
    # Values to which the greys of smoothed edges are assigned; empty if no edges are smoothed
    grey_levels: tuple[int, ...] = ()
    ignored: int | None = None  # a label value that losses and metrics ignore; None without one
    test_patients: frozenset[str] = frozenset()  # patients of the data set's own test part
    patients_given: bool = False  # True if the user's pattern or splits define the patients
    choices: Choices = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()  # interpretations of the folder that may differ from the user's
    notes: tuple[str, ...] = ()  # lines about files that were left out
    channels: tuple[str, ...] = ()  # names of the channels, such as T1w and FLAIR; empty if they are not known
    left_out: frozenset[Path] = frozenset()  # files that belong to no case and of which a note says so

    @property
    def labelled(self) -> list[CaseFiles]:
        """The cases that have a mask."""
        return [case for case in self.cases if case.labels]

    def with_decision(self, rule: str, text: str) -> "Source":
        return replace(self, decisions=(*self.decisions, Decision(rule, text)))

    def coding(self, values: Iterable[int], where: Path | str) -> Classes:
        """Return the coding of a mask with these values; raises InputError with the file and an unknown value."""
        return choose_coding({self.canonical(value) for value in values} - {self.ignored}, self.codings, where)

    def canonical(self, value: int) -> int:
        """Return the label value of a grey, which may belong to a range or to a level; other values are unchanged."""
        if self.grey_ranges:
            for (low, high), canonical in zip(self.grey_ranges, self.codings[0].values, strict=True):
                if low <= value <= high:
                    return canonical
        if self.grey_levels:
            return min(self.grey_levels, key=lambda level: (abs(level - value), -level))
        return value


@contextmanager
def without_names(
    where: str | Path, hidden: bool, words: str = "its files cannot be read; `attunet inspect` on them says why"
) -> Iterator[None]:
    """Context in which errors of reading `where` do not quote what it holds, where names are hidden: they may be names
    that nobody knows yet. An error for a path that does not exist is raised as it is: the path is the user's own.
    Too little memory, and a file that is removed while it is read, are such errors too.

    words: the error, which says how to see the reason.
    """
    try:
        yield
    except (InputError, TooLittleMemory, OSError) as error:
        if not hidden or (isinstance(where, Path) and not where.exists()):
            raise
        if isinstance(error, TooLittleMemory):
            raise TooLittleMemory(f"{where}: there is too little memory to read it") from None
        raise InputError(f"{where}: {words}") from None


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder below `root` with the names of its folders and files, sorted, without hidden ones.

    Raises InputError for a folder that cannot be listed, and for more than `MAX_DEPTH` folders within each other.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be listed: {error.strerror}") from None

    start = len(root.parts)
    for folder, folders, names in os.walk(root, onerror=refuse):
        if len(Path(folder).parts) - start > MAX_DEPTH:
            raise InputError(f"{root}: has folders more than {MAX_DEPTH} deep, which is none of the known layouts")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(folder), folders, sorted(name for name in names if not name.startswith("."))


def regular_files(root: Path) -> list[Path]:
    """List all regular files below `root`, sorted, without hidden files and links that lead out of the folder."""
    inside = root.resolve()
    files = []
    for folder, _, names in walk(root):
        files += [
            path
            for path in map(folder.joinpath, names)
            if path.is_file() and (not path.is_symlink() or path.resolve().is_relative_to(inside))
        ]
    return files


def files_in(folder: Path) -> list[Path]:
    """List the regular files directly in a folder, sorted by name, without hidden files and links."""
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.is_symlink() and not p.name.startswith("."))


def content_hash(path: Path) -> str:
    """Compute the SHA-256 of a file, joined with that of the file beside it which has its voxels, or of the names and
    hashes of the files directly in a folder.
    """
    try:
        if path.is_dir():
            lines = "".join(f"{p.name} {sha256(p)}\n" for p in files_in(path))
            return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()
        return joined_hash([sha256(file) for file in files_of(path)])
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from None


@lru_cache(maxsize=2)  # an evaluation reads case after case
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
        if not all(_is_there(known.get(digest, ()), digest) for digest in wanted.values()):  # changed since
            files_by_hash.cache_clear()
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
    # A copy may have an ending by which it is not read
    return {name: min(paths, key=lambda path: _ending(path) != _ending(Path(name))) for name, paths in paths_of.items()}


def _ending(path: Path) -> str:
    return path.name.removeprefix(stem_of(path))


def _is_there(paths: Sequence[Path], digest: str) -> bool:
    """True if all of these files, of which there is one, have this `content_hash`."""
    with suppress(InputError):
        return bool(paths) and all(content_hash(path) == digest for path in paths)
    return False
