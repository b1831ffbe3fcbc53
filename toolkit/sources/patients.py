"""The patient of each case, from names, folders or DICOM headers; all cases of a patient are in one fold."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from attunet.sources.case_files import CaseFiles, Source
from attunet.sources.splits import joined

Place = tuple[str, ...]  # names of folders

# The end of a name that tells slices, frames, visits, sides and crops of one patient apart: `_slice_07`, `-month12`,
# `_left`, `L`, a date.
_TIMES = "phase|time|timepoint|tp|t|visit|v|session|ses|day|week|month|year|m"
_WORDS = f"slice|sl|frame|fr|{_TIMES}|scan|series|img|image|z|patch|tile|crop|aug|copy"
_ALONE = "left|right|l|r|lt|rt|od|os|baseline|bl|follow[_-]?up|fu|pre|post"
_YEAR = r"(?:19|20)\d\d"
_DATE = rf"{_YEAR}([_\-.])\d\d\1\d\d"
_NUMBERED = rf"(?:{_WORDS})[_\-. ]?\d+|follow[_-]?up[_\-. ]?\d+|fu[_\-. ]?\d+"
_PART = re.compile(rf"(?:[_\-. /](?:{_DATE}|{_NUMBERED}|{_ALONE})|(?<=\d)(?:L|R|OD|OS))$", re.IGNORECASE)
# Folders of many patients
_PORTION = re.compile(
    r"(part|pt|batch|fold|split|set|group|class|grade|level|task|job|project"
    r"|train\w*|test\w*|val\w*|images?|vol\w*)[_\-. ]?\d+$"
    r"|(?:^|[_\-. ])(?:site|cent(?:er|re)|hospital)[_\-. ]?\w{1,2}$"
    r"|(?:train|test|valid|data|challenge|images?)\D*$|(?:^|[_\-. ])val$",
    re.IGNORECASE,
)


def with_patients_of_names(source: Source) -> Source:
    """Set the patients that names and folders show, and add the decision.

    Folders of patients are tried first, which hold all of a patient's slices and visits, then names. Nothing changes if
    the layout knows the patients already, or if all cases would be of one patient, because no folds could be made.
    """
    if any(case.patient != case.case for case in source.cases):
        return source
    places = {case.case: _place(source.root, case) for case in source.cases}
    shared = len(os.path.commonprefix(list(places.values())))  # noqa: RUF071 (parts of paths, not paths)
    for reading, patient_of in (
        ("cases in one folder are", partial(_folder, shared)),
        ("names that differ in a slice, frame, visit or side alone are", _without_part),
        ("names that differ in the last number alone are", _without_number),
        ("cases whose folders have one name are", _name_of_folder),
    ):
        patients = {case.case: patient_of(places[case.case], case) for case in source.cases}
        numbers = Counter(patients.values())
        if len(numbers) > 1 and max(numbers.values()) > 1:
            example, count = numbers.most_common(1)[0]
            counts = f"{len(numbers)} patients for {len(source.cases)} cases ({example!r} has {count})"
            return _with(source, patients, f"{reading} of one patient: {counts}")
    return source


def with_patients_of_headers(source: Source, hashes: Mapping[str, str]) -> Source:
    """Make one patient of all patients whose files contain the same patient identifier, of which `hashes` has the
    SHA-256 by case; one that all cases share is a placeholder and is ignored.
    """
    if len(set(hashes.values())) < 2:
        return source
    sharing: defaultdict[str, set[str]] = defaultdict(set)
    for case in source.cases:
        if case.case in hashes:
            sharing[hashes[case.case]].add(case.patient)
    first_of = joined((case.patient for case in source.cases), sharing.values())
    moved = sum(first != patient for patient, first in first_of.items())
    if not moved:
        return source
    text = f"{moved} patients have the PatientID of another case's DICOM files: they are of one patient"
    return _with(source, {case.case: first_of[case.patient] for case in source.cases}, text)


def _with(source: Source, patients: Mapping[str, str], text: str) -> Source:
    cases = tuple(replace(case, patient=patients[case.case]) for case in source.cases)
    test = frozenset(patients[case.case] for case in source.cases if case.patient in source.test_patients)
    return replace(source, cases=cases, test_patients=test).with_decision("same-patient", text)


def _without_part(place: Place, case: CaseFiles) -> str:
    """Remove the endings of a case's name, as long as something is left that is not the name of a set of patients."""
    own, folder = _own_name(place, case), "/".join(place)
    name = case.case if own == case.case else f"{folder}/{own}"  # a word and its number are of one folder
    of_many = folder if place and _PORTION.search(place[-1]) else ""
    while (shorter := _PART.sub("", name)) not in (name, "", of_many):
        name = shorter
    return name.replace("/", "_")


def _without_number(place: Place, case: CaseFiles) -> str:
    """Remove the number at the end of a case's name if another number is left that is not the folder's.

    The last number of `BraTS-GLI-00001-000` is a visit, that of `case_0001` the patient.
    """
    own = _own_name(place, case)
    stem = re.sub(r"[_\-. ]\d+$", "", own)
    return case.case.removesuffix(own) + stem if re.search(r"\d", stem) else case.case


def _folder(shared: int, place: Place, case: CaseFiles) -> str:
    """Return the uppermost folder, below those that all cases share, that is a patient's; else the case.

    Folders of patients have a number, or hold folders of visits or sides; those of sets and visits are passed over.
    """
    parts = place[shared:]
    for name, below in zip(parts, (*parts, "")[1:], strict=True):
        if not _PORTION.search(name) and not _is_time(name) and (re.search(r"\d", name) or _is_time(below)):
            return name
    return case.case


def _is_time(folder: str) -> bool:
    """True for a folder called `visit1`, `left`, `2019`, `20190304` or the like."""
    return re.fullmatch(rf"{_YEAR}(\d{{4}})?", folder) is not None or _PART.fullmatch(f"_{folder}") is not None


def _name_of_folder(place: Place, case: CaseFiles) -> str:
    """Return the name of a case's own folder, as in `visit1/pat1` and `visit2/pat1`; else the case.

    Sets of patients, as `train` and `test`, count theirs anew.
    """
    own = _own_name(place, case)
    is_folder = f"/{own}/" in f"{case.images[0].as_posix()}/"
    return case.case if not is_folder or (place and _PORTION.search(place[-1])) else own


def _own_name(place: Place, case: CaseFiles) -> str:
    """A case's name without the folders that it lies in."""
    return case.case.removeprefix(f"{'_'.join(place)}_")


def _place(root: Path, case: CaseFiles) -> Place:
    """The folders, below the source, that a case lies in, and whose names may begin the case's name.

    Of a case that is a folder itself, they are those above it.
    """
    parts = case.images[0].relative_to(root).parts
    for depth in range(len(parts), 0, -1):
        path = "_".join(parts[:depth])
        if case.case in (parts[depth - 1], path):
            return parts[: depth - 1]
        if case.case.startswith(f"{path}_"):
            return parts[:depth]
    return parts[:-1]
