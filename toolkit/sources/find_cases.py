"""Search for the cases of a source: `auto` tries every layout in turn and reports the chosen one with the reason."""

import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from attunet.classes import Classes
from attunet.decisions import choice
from attunet.errors import InputError
from attunet.fields import check_name
from attunet.io.headers import voxels_without_header
from attunet.io.pictures.annotations import ANNOTATION_SUFFIXES
from attunet.io.readers import COMPANIONS, is_readable
from attunet.sources.case_files import DEFAULTS, CaseFiles, Source, SourceOptions, regular_files
from attunet.sources.labels.several_masks import resolve_masks
from attunet.sources.layouts.annotated import find_annotated
from attunet.sources.layouts.by_role import find_bids, find_case_folders
from attunet.sources.layouts.chaos import find_chaos_ct, find_chaos_mr
from attunet.sources.layouts.decathlon import find_decathlon
from attunet.sources.layouts.label_studio import find_label_studio
from attunet.sources.layouts.no_layout import ARCHIVES, links_left_out, why_no_layout
from attunet.sources.layouts.series import find_series_with_masks
from attunet.sources.layouts.side_by_side import find_src_mask, find_suffixes
from attunet.sources.layouts.two_folders import find_anywhere, find_folders
from attunet.sources.patients import with_patients_of_names

# Endings of files beside the data, which are no case that could be missed
NO_DATA = (
    *(*COMPANIONS, *ANNOTATION_SUFFIXES, "readme", "license", "licence", "changes", "dicomdir"),
    *(".txt", ".csv", ".tsv", ".md", ".pdf", ".html", ".xls", ".xlsx", ".doc", ".docx", ".bval", ".bvec", ".cfg"),
)
TEST_FOLDER = re.compile(r"(test|testing)([-_ ].*)?", re.IGNORECASE)
CASE_NAME = re.compile(r'[^. /\\:*?"<>|][^/\\:*?"<>|]*')

# From a folder, its files and the options to its cases, or None if the layout does not fit
Finder = Callable[[Path, list[Path], SourceOptions], Source | None]


class NoLayout(InputError):
    """A folder without anything that a layout takes for images and masks."""


# In the order in which auto tries them; with an example of each.
FINDERS: dict[str, tuple[Finder, str]] = {
    "chaos-mr": (find_chaos_mr, "Train_Sets/MR/1/T2SPIR/{DICOM_anon/*.dcm, Ground/*.png}"),
    "chaos-ct": (find_chaos_ct, "Train_Sets/CT/1/{DICOM_anon/*.dcm, Ground/*.png}"),
    "decathlon": (find_decathlon, "dataset.json, imagesTr/a.nii.gz or a_0000.nii.gz, labelsTr/a.nii.gz"),
    "annotations": (find_annotated, "annotations.json (COCO, Label Studio) or .xml (CVAT), images/a.png"),
    "label-studio": (
        find_label_studio,
        "images/a.png, masks/task-1-annotation-2-by-3-tag-liver-0.png (Label Studio's PNG export)",
    ),
    "images-labels": (
        find_folders,
        "images/a.nii.gz or .png or .tif or .jpg, labels/ or masks/ or ground_truth/a.nii.gz or a_mask.png",
    ),
    "src-mask": (find_src_mask, "01-T2SPIR-src.nii.gz, 01-T2SPIR-mask.nii.gz"),
    "bids": (find_bids, "sub-1/ses-1/sub-1_ses-1_dwi.nii.gz, derivatives/sub-1/ses-1/sub-1_ses-1_msk.nii.gz"),
    "suffix": (find_suffixes, "a.png, a_mask.png (and a_mask_1.png), or image_a.nii, mask_a.nii"),
    "case-folders": (
        find_case_folders,
        "case_1/{imaging.nii.gz, segmentation.nii.gz}, case_1/{ct.nii.gz, segmentations/liver.nii.gz}",
    ),
    "series-masks": (find_series_with_masks, "PATIENT_0001/study/series/*.dcm, labels/label0001.nii.gz"),
    "anywhere": (find_anywhere, "part1/volume-0.nii, segmentations/segmentation-0.nii"),
}
LAYOUTS = ("auto", *FINDERS)


def find_cases(source: Path | str, options: SourceOptions = DEFAULTS) -> Source:
    """Find the cases of a folder, in the order of their names, with their layout and every decision about the files.

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
        cases = _finished(_by_layout(root, files, options), files, options)
    except InputError as error:
        raise (type(error)(f"{error}; {links}") if links else error) from None
    return replace(cases, notes=(*cases.notes, links)) if links else cases


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
        raise NoLayout(f"{root}: the folder has no files{f', but {reason}' if reason else ''}")
    return files


def _by_layout(root: Path, files: list[Path], options: SourceOptions) -> Source:
    """The cases by the first layout that fits the folder or the one folder in it."""
    inner = _wrapped(root, files)
    below = [path for path in files if path.is_relative_to(inner)]
    tried = FINDERS if options.layout == "auto" else {options.layout: FINDERS[options.layout]}
    first_error: InputError | None = None
    for name, (find, _) in tried.items():
        if first_error and name == "case-folders":
            continue  # a folder of images with a mask too many would be one case, and its images the channels
        try:
            source = find(root, files, options) or (find(inner, below, options) if inner != root else None)
        except InputError as error:
            if name != "images-labels" or len(tried) == 1:
                raise
            # The names of folders may mislead; a later layout may fit, and if none does, this is the reason
            first_error = error
            continue
        if source is not None:
            return replace(source, root=root, choices=options.choices)
    raise first_error or NoLayout(why_no_layout(root, files, {name: example for name, (_, example) in tried.items()}))


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
        source = _with_classes(source, *options.classes)
    source = replace(source, cases=tuple(sorted(source.cases, key=lambda case: case.case)))
    _check_names(source)
    if options.case_pattern is None:
        source = with_patients_of_names(source)
    else:
        cases = tuple(replace(case, patient=_patient(case, options.case_pattern)) for case in source.cases)
        source = replace(source, cases=cases, patients_given=True)
    source = _with_test_part(source)
    used = {path for case in source.cases for path in (*case.images, *case.labels)}
    folders = {path for path in used if path.is_dir()}
    used |= source.left_out
    lost = voxels_without_header(files)
    data = [path for path in files if is_readable(path) or path in lost or not path.name.lower().endswith(NO_DATA)]
    unused = [path for path in data if path not in used and folders.isdisjoint(path.parents)]
    if not unused or source.layout in ("chaos-mr", "chaos-ct"):
        return source
    count = f"{len(unused)} of {len(data)} files belong to no case and are left out"
    return replace(source, notes=(*source.notes, f"{count}, first {unused[0].relative_to(source.root)}"))


def _with_classes(source: Source, coding: Classes, ignored: int | None) -> Source:
    """Set the user's classes, and rename the drawn classes of the cases to the user's names for the same values."""
    layout = source.codings[0] if len(source.codings) == 1 else None
    values = dict(zip(layout.names, layout.values, strict=True)) if layout else {}
    if any(case.label_values for case in source.cases):
        source, values = _with_values_of_files(source, coding, values)
    names = dict(zip(coding.values, coding.names, strict=True))
    renamed = {name: names[value] for name, value in values.items() if value in names}
    cases = tuple(
        replace(case, drawn=tuple(renamed.get(name, name) for name in case.drawn)) if case.drawn else case
        for case in source.cases
    )
    return replace(source, cases=cases, codings=(coding,), ignored=ignored, grey_ranges=None)


def _with_values_of_files(source: Source, coding: Classes, values: dict[str, int]) -> tuple[Source, dict[str, int]]:
    """Give classes that are mask files each the user's values; the user names all of them, in any case of letters.

    Returns the source, and the values that its files have now by name.
    """
    plain = _plain if len(set(map(_plain, values))) == len(values) else str
    given = {plain(name): value for name, value in zip(coding.names, coding.values, strict=True)}
    if len(given) < len(coding.names) or given.keys() != set(map(plain, values)):
        files, names = (", ".join(some[1:]) for some in (list(values), coding.names))
        raise InputError(f"classes: the mask files are {files}: name all of them, as they are called, got {names}")
    if coding.values[0] != 0 or min(coding.values) < 0:
        raise InputError(f"classes: the values of mask files must be positive and background 0, got {given}")
    new = {value: given[plain(name)] for name, value in values.items()}
    cases = tuple(replace(case, label_values=tuple(new[v] for v in case.label_values)) for case in source.cases)
    return replace(source, cases=cases), {name: new[value] for name, value in values.items()}


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]+", " ", unicodedata.normalize("NFC", name)).strip().casefold()


def _check_names(source: Source) -> None:
    for name in source.channels:
        check_name("channels", name)
    seen: dict[str, CaseFiles] = {}
    for case in source.cases:
        name = case.case
        if not name.isprintable() or not CASE_NAME.fullmatch(name) or len(name.encode()) > 200:
            raise InputError(
                f"{case.images[0]}: a case's name must be printable, of at most 200 bytes, without / \\ : * ? \" < > | "
                f"and leading dot, got {name!r}"
            )
        same = unicodedata.normalize("NFC", name).lower()
        if other := seen.get(same):
            raise InputError(
                f"{case.images[0]}: the case {name!r} is there twice, also as {other.images[0]}: rename one"
            )
        seen[same] = case


def _patient(case: CaseFiles, pattern: str) -> str:
    try:
        match = re.search(pattern, case.case)
    except (re.error, RecursionError, OverflowError) as error:
        shown = pattern if len(pattern) < 200 else f"{pattern[:200]}..."
        raise InputError(f"case pattern: must be a regular expression, got {shown!r}: {error}") from None
    if not match or not match.groups() or not match[1]:
        raise InputError(
            f"case pattern: {pattern!r} must match the patient as its first group in every case, not in {case.case!r}"
        )
    return match[1]


def _with_test_part(source: Source) -> Source:
    """Make patients with labelled cases in a folder named test the data set's test part, if others lie elsewhere."""
    if choice("published-split", source.choices) == "mix":
        return source
    test, others = set[str](), set[str]()
    for case in source.labelled:
        folders = case.images[0].relative_to(source.root).parts[:-1]
        (test if any(map(TEST_FOLDER.fullmatch, folders)) else others).add(case.patient)
    if not test - others or not others:
        return source
    part = f"{len(test - others)} of {len(test | others)} patients"
    return replace(source, test_patients=frozenset(test - others)).with_decision(
        "published-split", f"{part} lie in the data set's test folder and are its test set"
    )
