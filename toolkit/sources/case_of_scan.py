"""Names of the cases of scans that are alone, without masks: those that `prepare` gives them with masks beside them."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from attunet.errors import InputError
from attunet.io.readers import is_readable, stem_of
from attunet.sources.case_files import DEFAULTS, files_in
from attunet.sources.input import Input
from attunet.sources.layouts.by_role import SUBJECT, find_case_folders
from attunet.sources.layouts.matching import IMAGE_WORDS, names_a_mask
from attunet.sources.layouts.two_folders import IMAGE_FOLDERS, find_folders

# Names of files that tell what they show and not of whom; with a number they may be those of cases
ROLE_WORDS = (
    rf"{IMAGE_WORDS}|imaging|scans?|vol|data|nifti|dicom|dcm|anon|series|study|cta?|mra?|mri|pet|spect|us|"
    r"t1[a-z]{0,2}|t2[a-z]{0,2}|flair|dwi|adc|swi|pdw?"
)
ROLE = re.compile(rf"(?:{ROLE_WORDS})(?:[-_ .](?:{ROLE_WORDS}))*", re.IGNORECASE)


def cases_of(inputs: Sequence[Input], root: Path) -> list[str]:
    """The case of each input: that of its layout, if it has one, else what `prepare` calls a case of this file, as far
    as the names tell. No two are the same; an input whose case another has, too, keeps its own name.
    """
    with_masks = _with_masks(inputs, root) if len(inputs) > 1 and not all(one.case for one in inputs) else {}
    cases = [
        one.case or _subject(one) or with_masks.get(one.files[0]) or _by_name(one, is_one=len(inputs) == 1)
        for one in inputs
    ]
    cases = [unicodedata.normalize("NFC", case) for case in cases]
    counts = Counter(name for one, case in zip(inputs, cases, strict=True) for name in {one.name, case})
    return [case if counts[case] == 1 else one.name for one, case in zip(inputs, cases, strict=True)]


def _with_masks(inputs: Sequence[Input], root: Path) -> dict[Path, str]:
    """The case of each input's first file where all have a mask in `labels/`, or in their folder; none if the layout
    does not make each of the inputs a case.
    """
    files = [file for one in inputs for path in one.files for file in (files_in(path) if path.is_dir() else [path])]
    firsts = {one.files[0] for one in inputs}
    for find, mask_of in ((find_folders, _in_labels), (find_case_folders, _in_folder)):
        masks = {mask for path in firsts if (mask := mask_of(path, root))}
        try:
            source = find(root, [*files, *masks - set(files)], DEFAULTS)
        except InputError:
            continue
        cases = {case.images[0]: case.case for case in source.cases} if source else {}
        if cases.keys() == firsts:
            return cases
    return {}


def _in_labels(path: Path, root: Path) -> Path | None:
    """`labels/X` of `images/X`."""
    parts = path.relative_to(root).parts
    at = next((at for at, part in enumerate(parts[:-1]) if part.lower() in IMAGE_FOLDERS), None)
    if at is None:
        return None
    return root.joinpath(*parts[:at], "labels", *parts[at + 1 : -1], f"{_without_channel(stem_of(path))}.nii.gz")


def _in_folder(path: Path, root: Path) -> Path:
    return (path if path.is_dir() else path.parent) / "segmentation.nii.gz"


def _subject(one: Input) -> str:
    """`sub-X` or `sub-X_ses-Y` of a file of BIDS; empty for others."""
    match = SUBJECT.fullmatch(stem_of(one.files[0]))
    return match[1] + (match[2] or "") if match else ""


def _by_name(one: Input, *, is_one: bool) -> str:
    """`X` of `X-src` and of nnU-Net's `X_0000`, which name one volume, the folders before the name stay; the folder of
    a single volume that is called as others may be.
    """
    path = Path(os.path.abspath(one.files[0]))
    stem = path.name if one.files[0].is_dir() else stem_of(path)
    if is_one and _is_called_as_others(path, stem):
        return path.parent.name or stem
    return _without_channel(one.name)


def _is_called_as_others(path: Path, stem: str) -> bool:
    """True if a name says what a scan shows (`imaging`, `t1`), or a scan that is alone in its folder has the name of
    one in a folder beside it.
    """
    if ROLE.fullmatch(stem):
        return True
    with suppress(OSError):  # a folder that may not be listed
        others = (other for other in path.parent.iterdir() if other != path and not names_a_mask(stem_of(other)))
        folders = (folder for folder in path.parent.parent.iterdir() if folder.name != path.parent.name)
        is_alone = not any(other.is_dir() or is_readable(other) for other in others)
        return is_alone and any((folder / path.name).exists() for folder in folders)
    return False


def _without_channel(name: str) -> str:
    return re.sub(r"(?i)(?<=[^/])(-src|_0000)$", "", name)
