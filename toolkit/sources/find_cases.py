"""Search for the cases of a source: `auto` tries every layout in turn and reports the chosen one with the reason."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from attunet.classes import Classes
from attunet.decisions import Choices, Decision, choice
from attunet.errors import InputError
from attunet.io.readers import is_readable
from attunet.sources.case_files import CaseFiles, Source, regular_files
from attunet.sources.layouts.annotated import find_annotated
from attunet.sources.layouts.anywhere import find_anywhere
from attunet.sources.layouts.by_role import find_bids, find_case_folders
from attunet.sources.layouts.chaos import find_chaos
from attunet.sources.layouts.decathlon import find_decathlon
from attunet.sources.layouts.label_studio import find_label_studio
from attunet.sources.layouts.series import find_series_with_masks
from attunet.sources.layouts.side_by_side import find_src_mask, find_suffixes
from attunet.sources.layouts.two_folders import find_folders
from attunet.sources.no_layout import ARCHIVES, links_left_out, why_no_layout
from attunet.sources.patients import with_patients_of_names
from attunet.sources.several_masks import resolve_masks

TEST_FOLDER = re.compile(r"(test|testing)([-_ ].*)?", re.IGNORECASE)


@dataclass(frozen=True)
class SourceOptions:
    """Options of reading a source.

    Args:
        layout: the name of a layout in `FINDERS`, or auto.
        classes: the user's own names and values, and the value to ignore, as `parse_classes` gives them.
        case_pattern: a regular expression whose first group, matched in a case's name, is its patient.
        images: parts of the names of files that are channels, in their order.
        masks: parts of the names of the masks to use.
        choices: the user's readings (`--read RULE=VALUE`), by rule.
    """

    layout: str = "auto"
    classes: tuple[Classes, int | None] | None = None
    case_pattern: str | None = None
    images: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    choices: Choices = field(default_factory=dict)


DEFAULTS = SourceOptions()

Finder = Callable[[Path, list[Path], SourceOptions], Source | None]

# In the order in which auto tries them; with an example of each.
FINDERS: dict[str, tuple[Finder, str]] = {
    "chaos-mr": (
        lambda root, files, _: find_chaos(root, files, "MR"),
        "Train_Sets/MR/1/T2SPIR/{DICOM_anon/*.dcm, Ground/*.png}",
    ),
    "chaos-ct": (
        lambda root, files, _: find_chaos(root, files, "CT"),
        "Train_Sets/CT/1/{DICOM_anon/*.dcm, Ground/*.png}",
    ),
    "decathlon": (
        lambda root, files, _: find_decathlon(root, files),
        "dataset.json, imagesTr/a.nii.gz or a_0000.nii.gz, labelsTr/a.nii.gz",
    ),
    "annotations": (
        lambda root, files, _: find_annotated(root, files),
        "annotations.json (COCO, Label Studio) or .xml (CVAT), images/a.png",
    ),
    "label-studio": (
        lambda root, files, options: find_label_studio(root, files, options.masks, options.choices),
        "images/a.png, masks/task-1-annotation-2-by-3-tag-liver-0.png (Label Studio's PNG export)",
    ),
    "images-labels": (
        lambda root, files, options: find_folders(root, files, options.masks),
        "images/a.nii.gz or .png or .tif or .jpg, labels/ or masks/ or ground_truth/a.nii.gz or a_mask.png",
    ),
    "src-mask": (lambda root, files, _: find_src_mask(root, files), "01-T2SPIR-src.nii.gz, 01-T2SPIR-mask.nii.gz"),
    "bids": (
        lambda root, files, options: find_bids(root, files, options.images, options.masks),
        "sub-1/ses-1/sub-1_ses-1_dwi.nii.gz, derivatives/sub-1/ses-1/sub-1_ses-1_msk.nii.gz",
    ),
    "suffix": (
        lambda root, files, _: find_suffixes(root, files),
        "a.png, a_mask.png (and a_mask_1.png), or image_a.nii, mask_a.nii",
    ),
    "case-folders": (
        lambda root, files, options: find_case_folders(root, files, options.images, options.masks),
        "case_1/{imaging.nii.gz, segmentation.nii.gz}, case_1/{ct.nii.gz, segmentations/liver.nii.gz}",
    ),
    "series-masks": (
        lambda root, files, _: find_series_with_masks(root, files),
        "PATIENT_0001/study/series/*.dcm, labels/label0001.nii.gz",
    ),
    "anywhere": (
        lambda root, files, _: find_anywhere(root, files),
        "part1/volume-0.nii, segmentations/segmentation-0.nii",
    ),
}
LAYOUTS = ("auto", *FINDERS)


def find_cases(source: Path | str, options: SourceOptions = DEFAULTS) -> Source:
    """Find the cases of a source, in the order of their names.

    Args:
        source: a folder.
        options: see `SourceOptions`.

    Returns:
        The cases, with their layout and every decision about the files.

    Raises:
        InputError: no layout fits, or the files are ambiguous.

    Example:
        find_cases("data", SourceOptions(case_pattern=r"^(p\\d+)_"))
    """
    root = Path(source)
    if options.layout not in LAYOUTS:
        raise InputError(f"layout: must be one of {', '.join(LAYOUTS)}, got {options.layout!r}")
    links = links_left_out(root) if root.is_dir() else None
    files = _files(root, links)
    try:
        found = _found(root, files, options)
    except InputError as error:
        raise (InputError(f"{error}; {links}") if links else error) from None
    return replace(found, notes=(*found.notes, links)) if links else found


def _found(root: Path, files: list[Path], options: SourceOptions) -> Source:
    inner = _wrapped(root, files)
    below = [path for path in files if path.is_relative_to(inner)]
    first_error: InputError | None = None
    for name, (find, _) in FINDERS.items():
        if options.layout not in ("auto", name):
            continue
        try:
            cases = find(root, files, options) or (find(inner, below, options) if inner != root else None)
        except InputError as error:
            if name != "images-labels" or options.layout != "auto":
                raise
            # The names of folders may mislead; a later layout may fit, and if none does, this is the reason
            first_error = error
            continue
        if cases is not None:
            return _finished(replace(cases, root=root, choices=options.choices), files, options)
    tried = FINDERS if options.layout == "auto" else {options.layout: FINDERS[options.layout]}
    raise first_error or InputError(why_no_layout(root, files, {name: example for name, (_, example) in tried.items()}))


def _files(root: Path, links: str | None) -> list[Path]:
    if not root.exists():
        raise InputError(f"{root}: no such folder")
    if not root.is_dir():
        unpacked = ": unpack it" if root.name.lower().endswith(ARCHIVES) else ""
        raise InputError(f"{root}: must be a folder of cases, or a zip or tar archive of one{unpacked}")
    files = regular_files(root)
    if not files:
        hidden = "hidden ones alone, whose names begin with a dot" if any(root.rglob(".*")) else ""
        reason = "; ".join(words for words in (links, hidden) if words)
        raise InputError(f"{root}: the folder has no files{f', but {reason}' if reason else ''}")
    return files


def _wrapped(root: Path, files: list[Path]) -> Path:
    """Return the deepest folder that has all readable files below it; archives often hold a single folder."""
    readable = [path.parent for path in files if is_readable(path)]
    inner = Path(os.path.commonpath(readable)) if readable else root
    decathlon = {"imagestr", "labelstr", "imagests"}
    return inner.parent if inner != root and inner.name.lower() in decathlon else inner


def _finished(source: Source, files: Sequence[Path], options: SourceOptions) -> Source:
    """Apply the steps that all layouts share: classes, names, patients, the test part, files of no case."""
    source = resolve_masks(source, options.masks)
    if options.classes is not None:
        coding, ignored = options.classes
        coding = _renumbered(source, coding)
        source = replace(
            source, cases=_with_names(source, coding), codings=(coding,), ignored=ignored, grey_ranges=None
        )
    source = _checked(source, options.case_pattern)
    source = with_patients_of_names(source) if options.case_pattern is None else replace(source, patients_given=True)
    source = _with_test_part(source)
    used = {path for case in source.cases for path in (*case.images, *case.labels)}
    folders = {path for path in used if path.is_dir()}
    unused = [p for p in files if is_readable(p) and p not in used and folders.isdisjoint(p.parents)]
    if unused and not source.notes and source.layout not in ("chaos-mr", "chaos-ct"):
        total = sum(is_readable(path) for path in files)
        note = (
            f"{len(unused)} of {total} files belong to no case and are left out, first "
            f"{unused[0].relative_to(source.root)}"
        )
        source = replace(source, notes=(*source.notes, note))
    return source


def _renumbered(source: Source, coding: Classes) -> Classes:
    """Give the user's classes the values of the layout, if the names of mask files are classes."""
    values = {value for case in source.cases for value in case.label_values}
    if not values or set(coding.names) != set(source.codings[0].names):
        return coding
    given = dict(zip(source.codings[0].names, source.codings[0].values, strict=True))
    return Classes(coding.names, tuple(given[name] for name in coding.names))


def _with_names(source: Source, coding: Classes) -> tuple[CaseFiles, ...]:
    """Rename the drawn classes of the cases to the user's names for the same values."""
    if len(source.codings) != 1:
        return source.cases
    names = dict(zip(coding.values, coding.names, strict=True))
    renamed = {
        name: names.get(value, name)
        for name, value in zip(source.codings[0].names, source.codings[0].values, strict=True)
    }
    return tuple(
        case if case.drawn is None else replace(case, drawn=tuple(renamed.get(name, name) for name in case.drawn))
        for case in source.cases
    )


def _checked(source: Source, case_pattern: str | None) -> Source:
    seen: dict[str, CaseFiles] = {}
    cases = []
    for case in sorted(source.cases, key=lambda c: c.case):
        name = case.case
        if (
            not name.isprintable()
            or set(name) & set('/\\:*?"<>|')
            or name.startswith((".", " "))
            or not 0 < len(name.encode()) <= 200
        ):
            raise InputError(
                f"{case.images[0]}: a case's name must be printable, of at most 200 bytes, without / \\ : * ? \" < > "
                f"| and leading dot, got {name!r}"
            )
        if name.lower() in seen:
            raise InputError(
                f"{case.images[0]}: the case {name!r} is there twice, also as {seen[name.lower()].images[0]}: rename "
                "one"
            )
        seen[name.lower()] = case
        cases.append(replace(case, patient=_patient(case, case_pattern)) if case_pattern else case)
    return replace(source, cases=tuple(cases))


def _patient(case: CaseFiles, pattern: str) -> str:
    try:
        match = re.search(pattern, case.case)
    except re.error as error:
        raise InputError(f"case pattern: must be a regular expression, got {pattern!r}: {error}") from None
    if not match or not match.groups() or not match[1]:
        raise InputError(
            f"case pattern: {pattern!r} must match the patient as its first group in every case, not in {case.case!r}"
        )
    return match[1]


def _with_test_part(source: Source) -> Source:
    """Make patients with labelled cases in a folder named test the data set's test part, if others lie elsewhere."""
    if choice("published-split", source.choices) == "mix":
        return source
    labelled = [case for case in source.cases if case.labels]
    test = {case.patient for case in labelled if _in_test_folder(source.root, case)}
    others = {case.patient for case in labelled if not _in_test_folder(source.root, case)}
    if not test - others or not others:
        return source
    reading = Decision(
        "published-split",
        f"{len(test - others)} of {len(test | others)} patients lie in the data set's test folder and are its test set",
    )
    return replace(source, test_patients=frozenset(test - others), decisions=(*source.decisions, reading))


def _in_test_folder(root: Path, case: CaseFiles) -> bool:
    return any(TEST_FOLDER.fullmatch(part) for part in case.images[0].relative_to(root).parts[:-1])
