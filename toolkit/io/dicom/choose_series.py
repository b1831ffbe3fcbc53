"""Several DICOM series in one folder: a list without the patient's data, and the choice of one (`--series`)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from attunet.errors import InputError
from attunet.fields import parse_whole
from attunet.io.dicom.bounded_reads import TooManyElements
from attunet.io.dicom.file import DERIVED, dataset_of

if TYPE_CHECKING:
    from pydicom import FileDataset

RULE = "dicom-series"  # in the user's readings; `--series` sets it
MAX_LISTED = 20
MAX_DESCRIPTION = 48
NAMES = (
    *("PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ResponsiblePerson"),
    *("ReferringPhysicianName", "ConsultingPhysicianName", "PhysiciansOfRecord", "PerformingPhysicianName"),
    *("NameOfPhysiciansReadingStudy", "RequestingPhysician", "ScheduledPerformingPhysicianName", "OperatorsName"),
    *("NamesOfIntendedRecipientsOfResults", "OrderEnteredBy", "HumanPerformerName", "ContentCreatorName"),
)
IDENTIFIERS = (
    *("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "PatientAddress"),
    *("InstitutionName", "InstitutionAddress"),
)
THREE_NUMBERS = re.compile(r"(?<!\d)(?=(\d{1,4})([ ./_-])(\d{1,2})\2(\d{1,4})(?!\d))")


@dataclass
class Series:
    """One series of a folder."""

    # The header's SeriesNumber where that tells the folder's series apart, else its place in their order
    number: int | None
    description: str  # the header's words without a patient's, empty where there are none
    modality: str  # MR, CT, ...
    size: str  # `rows × columns` of its first file, empty for an object without pixels
    files: list[Path] = field(default_factory=list)

    def line(self) -> str:
        """The series for a person: `2 't2 axial' (MR, 30 slices of 256 × 256)`."""
        kind = re.sub(r"[^A-Z]", "", self.modality)[:8] or "unnamed"
        plural = "s" if len(self.files) > 1 else ""
        count = f"{len(self.files)} slice{plural} of {self.size}" if self.size else "no image"
        described = f" {self.description!r}" if self.description else ""
        return f"{self.number}{described} ({kind}, {count})"


def list_series(files: Sequence[Path], *, whole: bool = False) -> list[Series]:
    """The series of DICOM files by number.

    A file that cannot be read is left out: reading it gives the reason. With `whole` it raises InputError, since the
    file may be a slice of any of the series. Raises TooManyElements for a file that takes time.
    """
    groups: dict[str, Series] = {}  # by their UIDs
    for file in files:
        try:
            with dataset_of(file, len(files)) as header:
                uid, described = _described(header)
        except InputError as error:
            if whole or isinstance(error, TooManyElements):
                raise
            continue
        groups.setdefault(uid, described).files.append(file)
    if whole and "" in groups and len(groups) > 1:
        first = groups[""].files[0]
        raise InputError(f"{first}: lacks the element SeriesInstanceUID, and may be a slice: take it away")
    in_order = sorted(groups.values(), key=lambda one: (one.number is None, one.number or 0, one.files[0]))
    if len({one.number for one in in_order} - {None}) < len(in_order):
        for place, one in enumerate(in_order, 1):
            one.number = place
    return in_order


def _described(header: "FileDataset") -> tuple[str, Series]:
    """The series' UID, and the series as this file describes it, still without files."""
    modality = str(header.get("Modality", ""))
    has_pixels = modality not in DERIVED and "Rows" in header
    size = f"{header.Rows} × {header.Columns}" if has_pixels else ""
    number = parse_whole(str(header.get("SeriesNumber", "")).strip())
    return str(header.get("SeriesInstanceUID", "")), Series(number, _description(header), modality, size)


def _description(header: "FileDataset") -> str:
    """The series' description, or nothing where it holds a word of a person's or an identifier, the year of birth, or
    what may be a date.
    """
    text = " ".join(str(header.get("SeriesDescription") or "").split())
    names, identifiers = (_words(header, elements) for elements in (NAMES, IDENTIFIERS))
    year = str(header.get("PatientBirthDate") or "")[:4]
    long = [word for word in names | identifiers | {year} if len(word) > 2]
    short = names & set(_split(text))  # letters of a name of one or two, as words of their own
    if not text.isprintable() or _has_date(text) or short or any(word in text.lower() for word in long):
        return ""
    return text[:MAX_DESCRIPTION]


def _has_date(text: str) -> bool:
    """True for six digits together, and for a day and a month, in any order, with a year before or after them."""
    for first, separator, second, third in THREE_NUMBERS.findall(text):
        for year, day in ((first, third), (third, first)):
            low, high = sorted((int(day), int(second)))
            is_year = 1900 <= int(year) < 2100 or (len(year) == 2 and separator != " ")
            if is_year and 1 <= low <= 12 and high <= 31:
                return True
    return re.search(r"\d{6}", text) is not None


def _words(header: "FileDataset", elements: Sequence[str]) -> set[str]:
    """The words of elements, in small letters."""
    return {word for element in elements for word in _split(str(header.get(element) or ""))}


def _split(text: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", text.lower()) if word]


def several_series(files: Sequence[Path]) -> str | None:
    """A clause that lists the series and the option that chooses one; None for one series."""
    series = list_series(files) if len(files) > 1 else []
    if len(series) < 2:
        return None
    shown = ", ".join(one.line() for one in series[:MAX_LISTED])
    more = f" and {len(series) - MAX_LISTED} more" if len(series) > MAX_LISTED else ""
    changed = "; if an anonymiser gave each slice of one series a UID, give all slices the same SeriesInstanceUID"
    advice = changed if len(series) == len(files) > 2 else ""
    options = "choose one with --series NUMBER or --series TEXT of its description"
    return f"holds {len(series)} DICOM series; {options}: {shown}{more}{advice}"


def choose_series(folder: Path, files: Sequence[Path], wanted: str) -> list[Path]:
    """The DICOM files of a folder that are of the wanted series, by its number or a part of its description.

    A folder of one series gives all its files. Raises InputError where no series or several fit, or a file cannot be
    read.
    """
    series = list_series(files, whole=True)
    if len(series) < 2:
        return list(files)
    fitting = [one for one in series if wanted == str(one.number)]
    fitting = fitting or [one for one in series if wanted.lower() in one.description.lower()]
    if len(fitting) != 1:
        which = "none of its series is" if not fitting else f"{len(fitting)} of its series are"
        raise InputError(f"{folder}: --series {wanted!r}: {which} called so; it {several_series(files)}")
    return fitting[0].files
