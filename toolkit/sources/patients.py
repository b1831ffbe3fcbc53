"""The patient of each case, from names, folders or DICOM headers; all cases of a patient are in one fold."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from attunet.decisions import Decision
from attunet.sources.case_files import CaseFiles, Source

# The end of a name that tells slices, frames, visits, sides and crops of one patient apart: `_slice_07`, `-month12`,
# `_left`, `L`, a date.
_TIMES = "phase|time|timepoint|tp|t|visit|v|session|ses|day|week|month|year|m"
_WORDS = f"slice|sl|frame|fr|{_TIMES}|scan|series|img|image|z|patch|tile|crop|aug|copy"
_ALONE = "left|right|l|r|lt|rt|od|os|baseline|bl|follow[_-]?up|fu|pre|post"
_DATE = r"(?:19|20)\d\d([_\-.])\d\d\1\d\d"
_PART = re.compile(
    (
        rf"(?:[_\-. ](?:{_DATE}|(?:{_WORDS})[_\-. ]?\d+|(?:{_ALONE})|follow[_-]?up[_\-. ]?\d+|fu[_\-. "
        r"]?\d+)|(?<=\d)(?:L|R|OD|OS))$"
    ),
    re.IGNORECASE,
)
_PORTION = re.compile(
    r"(part|pt|batch|fold|split|set|train\w*|test\w*|val\w*|images?|vol\w*)[_\-. ]?\d+$", re.IGNORECASE
)  # folders of many patients
# Says something only behind a name that has a number of its own: `BraTS-GLI-00001-000`
_NUMBER = re.compile(r"[_\-. ]\d+$")


def with_patients_of_names(source: Source) -> Source:
    """Set the patients that names and folders show, and add the decision.

    Names are tried first, then folders with several cases. Nothing changes if the layout knows the patients already, or
    if all cases would be of one patient, because no folds could be made.
    """
    if any(case.patient != case.case for case in source.cases):
        return source
    for reading, patients in (
        (
            "names that differ in a slice, frame, visit or side alone are",
            {c.case: _stem(c.case, _PART) for c in source.cases},
        ),
        (
            "names that differ in the last number alone are",
            {c.case: _without_number(source.root, c) for c in source.cases},
        ),
        ("cases in one folder are", {c.case: _folder(source.root, c) for c in source.cases}),
    ):
        numbers = Counter(patients.values())
        if len(numbers) > 1 and max(numbers.values()) > 1:
            example, count = numbers.most_common(1)[0]
            text = (
                f"{reading} of one patient: {len(numbers)} patients for {len(source.cases)} cases ({example!r} has "
                f"{count})"
            )
            return _with(source, patients, text)
    return source


def with_patients_of_headers(source: Source, hashes: Mapping[str, str]) -> Source:
    """Make one patient of all cases whose files contain the same patient identifier.

    Args:
        source: the cases.
        hashes: case name -> SHA-256 of the identifier; one that all cases share is a placeholder and is ignored.
    """
    if len(set(hashes.values())) < 2:
        return source
    first: dict[str, str] = {}
    names = {
        c.case: first.setdefault(hashes[c.case], c.patient) if c.case in hashes else c.patient for c in source.cases
    }
    moved = [c for c in source.cases if names[c.case] != c.patient]
    if not moved:
        return source
    return _with(
        source, names, f"{len(moved)} cases have the PatientID of another case's DICOM files: they are of one patient"
    )


def _with(source: Source, patients: Mapping[str, str], text: str) -> Source:
    cases = tuple(replace(case, patient=patients[case.case]) for case in source.cases)
    test = frozenset(patients[case.case] for case in source.cases if case.patient in source.test_patients)
    return replace(
        source, cases=cases, test_patients=test, decisions=(*source.decisions, Decision("same-patient", text))
    )


def _stem(name: str, ending: re.Pattern[str]) -> str:
    """Remove the endings of a name if a number or another word of its own is left; otherwise return the name."""
    stem = name
    while (shorter := ending.sub("", stem)) != stem and shorter:
        if ending is _NUMBER and not re.search(r"\d", shorter):
            break
        stem = shorter
        if ending is _NUMBER:
            break
    return stem


def _without_number(root: Path, case: CaseFiles) -> str:
    """Remove the number at the end of a case's name if another number is left that is not the folder's."""
    folder = "_".join(case.images[0].parent.relative_to(root).parts) + "_"
    own = case.case.removeprefix(folder)
    stem = _stem(own, _NUMBER)
    return case.case if stem == own else case.case.removesuffix(own) + stem


def _folder(root: Path, case: CaseFiles) -> str:
    """Return the folder of a case's image if its name has a number, as folders of patients have; otherwise the case."""
    image = case.images[0]
    parent = image.parent
    return (
        parent.name
        if parent != root and re.search(r"\d", parent.name) and not _PORTION.search(parent.name)
        else case.case
    )
