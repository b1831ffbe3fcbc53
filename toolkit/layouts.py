"""Which files of a source make a case: one function per layout, and `auto` that says which it took and why."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attunet.classes import CHAOS_MR, Classes
from attunet.errors import InputError

LAYOUTS = ("auto", "src-mask")
CASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ +=@-]{0,199}")

# How copies of CHAOS write the same organs: plain, the official greys, and another common export.
CHAOS_CODINGS = (
    CHAOS_MR,
    Classes(CHAOS_MR.names, (0, 63, 126, 189, 252)),
    Classes(CHAOS_MR.names, (0, 80, 160, 240, 255)),
)

LOOKUP_RANGE = 2**16  # label values this close together are counted and mapped through a table

EXAMPLES = """  src-mask      FOLDER/01-T2SPIR-src.nii.gz, FOLDER/01-T2SPIR-mask.nii.gz, ..."""


@dataclass(frozen=True)
class CaseFiles:
    """images: one file per channel (or one with all channels); label: None where the case has none. Paths below the source."""

    case: str
    patient: str
    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True)
class Source:
    """A user's folder as cases.

    codings: how label values may be written, all with the same names; `classes` is the first of them.
    """

    root: Path
    layout: str
    reason: str
    codings: tuple[Classes, ...]
    cases: tuple[CaseFiles, ...]

    @property
    def classes(self) -> Classes:
        return self.codings[0]


def find_cases(source: Path | str, layout: str = "auto") -> Source:
    """The cases of a source, in the order of their names. Raises InputError where nothing, or something ambiguous, is found."""
    root = Path(source)
    if layout not in LAYOUTS:
        raise InputError(f"layout: must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if not root.exists():
        raise InputError(f"{root}: no such folder")
    if not root.is_dir():
        raise InputError(f"{root}: must be a folder of cases")
    files = regular_files(root)
    if not files:
        raise InputError(f"{root}: the folder has no files")
    finders: dict[str, Callable[[Path, list[Path]], Source | None]] = {"src-mask": _find_pairs}
    for name, find in finders.items():
        if layout in ("auto", name) and (found := find(root, files)):
            return _checked(found)
    raise InputError(f"{root}: fits no layout known here (first file: {files[0].relative_to(root)}); known are: {EXAMPLES.strip()}")


def regular_files(root: Path) -> list[Path]:
    """Every regular file below `root`, sorted; hidden ones and links that lead out of the folder are left out."""
    inside = root.resolve()
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file() and path.resolve().is_relative_to(inside):
                files.append(path)
    return files


def _find_pairs(root: Path, files: list[Path]) -> Source | None:
    """`X-src.nii.gz` with `X-mask.nii.gz` beside it; in CHAOS' names, `NN-SEQUENCE`, the number is the patient."""
    ending = re.compile(r"(.+)-(src|mask)\.nii(\.gz)?", re.IGNORECASE)
    images: dict[Path, Path] = {}
    masks: dict[Path, Path] = {}
    for path in files:
        if match := ending.fullmatch(path.name):
            group = images if match[2].lower() == "src" else masks
            stem = path.parent / match[1]
            if stem in group:
                raise InputError(f"{path}: the same image or mask is there twice, also as {group[stem].name}")
            group[stem] = path
    if not images:
        return None
    if orphans := sorted(set(masks) - set(images)):
        raise InputError(f"{masks[orphans[0]]}: this mask has no image {orphans[0].name}-src.nii.gz")
    cases = []
    for stem, image in images.items():
        chaos = re.match(r"(\d+)-", stem.name)
        cases.append(CaseFiles(stem.name, chaos[1] if chaos else stem.name, (image,), masks.get(stem)))
    return Source(root, "src-mask", f"{len(images)} files end in -src.nii or -src.nii.gz", CHAOS_CODINGS, tuple(cases))


def _checked(source: Source) -> Source:
    seen: dict[str, CaseFiles] = {}
    for case in source.cases:
        if not CASE_NAME.fullmatch(case.case):
            raise InputError(f"{case.images[0]}: a case's name must be letters, digits and . _ + = @ - or space, got {case.case!r}")
        if case.case.lower() in seen:
            raise InputError(f"{case.images[0]}: the case {case.case!r} is there twice, also as {seen[case.case.lower()].images[0]}")
        seen[case.case.lower()] = case
    return Source(source.root, source.layout, source.reason, source.codings, tuple(sorted(source.cases, key=lambda c: c.case)))


def choose_coding(values: Iterable[int], codings: tuple[Classes, ...], where: Path | str) -> Classes:
    """The first coding that has all label values of a file. Raises InputError that names the file and a value that no coding has."""
    present = set(values)
    for coding in codings:
        if present <= set(coding.values):
            return coding
    unknown = min(present, key=lambda v: (sum(v in c.values for c in codings), v))
    known = "; ".join(", ".join(map(str, c.values)) for c in codings)
    raise InputError(f"{where}: label values must be among {known}, got {unknown}")


def to_indices(labels: np.ndarray, mapping: Mapping[int, int], where: Path | str) -> np.ndarray:
    """Label values to class indices uint8 by `{value: index}`. Raises InputError for a value that is not in the mapping."""
    if unknown := [v for v in label_values(labels) if v not in mapping]:
        raise InputError(f"{where}: label values must be among {', '.join(map(str, mapping))}, got {unknown[0]}")
    low = min(mapping)
    if max(mapping) - low < LOOKUP_RANGE:
        table = np.zeros(max(mapping) - low + 1, dtype=np.uint8)
        table[np.array(list(mapping)) - low] = list(mapping.values())
        return table[labels.astype(np.int64) - low]
    indices = np.zeros(labels.shape, dtype=np.uint8)
    for value, index in mapping.items():
        indices[labels == value] = index
    return indices


def label_values(labels: np.ndarray) -> dict[int, int]:
    """Every value of an integer array, ascending, with the number of voxels that have it."""
    low = int(labels.min())
    if int(labels.max()) - low < LOOKUP_RANGE:
        counts = np.bincount(labels.ravel().astype(np.int64) - low)
        return {low + int(v): int(counts[v]) for v in np.flatnonzero(counts)}
    values, numbers = np.unique(labels, return_counts=True)
    return {int(v): int(n) for v, n in zip(values, numbers, strict=True)}
