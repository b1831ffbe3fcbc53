"""Which files of a source make a case: `auto` tries every layout in turn and says which it took and why."""

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

from attunet.classes import Classes
from attunet.errors import InputError
from attunet.io.readers import is_readable
from attunet.sources.case_files import CaseFiles, Source, regular_files
from attunet.sources.layouts.chaos import find_chaos
from attunet.sources.layouts.decathlon import find_decathlon
from attunet.sources.layouts.side_by_side import find_src_mask, find_suffixes
from attunet.sources.layouts.two_folders import find_folders

Finder = Callable[[Path, list[Path]], Source | None]

# In the order in which auto tries them; with an example of each.
FINDERS: dict[str, tuple[Finder, str]] = {
    "chaos-mr": (lambda root, files: find_chaos(root, files, "MR"), "Train_Sets/MR/1/T2SPIR/{DICOM_anon/*.dcm, Ground/*.png}"),
    "chaos-ct": (lambda root, files: find_chaos(root, files, "CT"), "Train_Sets/CT/1/{DICOM_anon/*.dcm, Ground/*.png}"),
    "decathlon": (find_decathlon, "dataset.json, imagesTr/a.nii.gz or a_0000.nii.gz, labelsTr/a.nii.gz"),
    "images-labels": (
        find_folders,
        "images/a.nii.gz or .png or .tif or .jpg, labels/ or masks/ or ground_truth/a.nii.gz or a_mask.png",
    ),
    "src-mask": (find_src_mask, "01-T2SPIR-src.nii.gz, 01-T2SPIR-mask.nii.gz"),
    "suffix": (find_suffixes, "a.png, a_mask.png (and a_mask_1.png), or image_a.nii, mask_a.nii"),
}
LAYOUTS = ("auto", *FINDERS)


def find_cases(
    source: Path | str,
    layout: str = "auto",
    *,
    classes: tuple[Classes, int | None] | None = None,
    case_pattern: str | None = None,
) -> Source:
    """The cases of a source, in the order of their names.

    classes: the user's own names and values, and the value to ignore, as `parse_classes` gives them;
    case_pattern: a regular expression whose first group, found in a case's name, is its patient.
    Raises InputError where nothing, or something ambiguous, is found.
    """
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
    inner = _wrapped(root, files)
    below = [path for path in files if path.is_relative_to(inner)]
    for name, (find, _) in FINDERS.items():
        if layout in ("auto", name) and (found := find(root, files) or find(inner, below)):
            found = dataclasses.replace(found, root=root)
            if classes is not None:
                found = dataclasses.replace(found, codings=(classes[0],), ignored=classes[1], grey_ranges=None)
            return _checked(found, case_pattern)
    asked = {layout: FINDERS[layout]} if layout != "auto" else FINDERS
    known = "; ".join(f"{name}: {example}" for name, (_, example) in asked.items())
    raise InputError(f"{root}: fits no known layout (its first file is {files[0].relative_to(root)}). Known are {known}")


def _wrapped(root: Path, files: list[Path]) -> Path:
    """The folder in which everything that is read here lies: archives are often of one folder."""
    readable = [path.parent for path in files if is_readable(path)]
    inner = Path(os.path.commonpath(readable)) if readable else root
    decathlon = {"imagestr", "labelstr", "imagests"}
    return inner.parent if inner != root and inner.name.lower() in decathlon else inner


def _checked(source: Source, case_pattern: str | None) -> Source:
    seen: dict[str, CaseFiles] = {}
    cases = []
    for case in sorted(source.cases, key=lambda c: c.case):
        name = case.case
        if not name.isprintable() or set(name) & set('/\\:*?"<>|') or name.startswith((".", " ")) or not 0 < len(name.encode()) <= 200:
            raise InputError(
                f"{case.images[0]}: a case's name must be printable, without / \\ : * ? \" < > | and no leading dot, got {name!r}"
            )
        if name.lower() in seen:
            raise InputError(f"{case.images[0]}: the case {name!r} is there twice, also as {seen[name.lower()].images[0]}")
        seen[name.lower()] = case
        cases.append(dataclasses.replace(case, patient=_patient(case, case_pattern)) if case_pattern else case)
    return dataclasses.replace(source, cases=tuple(cases))


def _patient(case: CaseFiles, pattern: str) -> str:
    try:
        match = re.search(pattern, case.case)
    except re.error as error:
        raise InputError(f"case pattern: must be a regular expression, got {pattern!r}: {error}") from None
    if not match or not match.groups() or not match[1]:
        raise InputError(f"case pattern: {pattern!r} must find the patient as its first group in every case, not in {case.case!r}")
    return match[1]
