"""A source as cases: the files of each case, before any of them is read."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from attunet.classes import Classes
from attunet.decisions import Choices, Decision
from attunet.sources.codings import choose_coding


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """The files of one case.

    Args:
        case: name of the case.
        patient: name of the patient; all cases of a patient are in one fold.
        images: one file for each channel, one file with all channels, or the folder of a DICOM series.
        labels: no file; one mask, or a folder with a mask for each DICOM slice; or several masks, one per object or
            class.
        drawn: names of the classes that were drawn; None for all classes.
        label_values: label value of each mask's foreground; empty if the values in the masks are used.
    """

    case: str
    patient: str
    images: tuple[Path, ...]
    labels: tuple[Path, ...] = ()
    label_values: tuple[int, ...] = ()
    drawn: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Source:
    """A user's folder as cases.

    Args:
        root: the folder.
        layout: the name of its file layout.
        reason: the reason for this layout, as a clause.
        codings: possible codings of the label values, all with the same names; if empty, each value in the masks
            becomes a class.
        cases: the files of every case.
        grey_ranges: for each class of a coding, the range of values that belong to it, for masks that image formats
            have changed.
        grey_levels: values to which the greys of smoothed edges are assigned; empty if no edges are smoothed.
        ignored: a label value that losses and metrics ignore; None without one.
        test_patients: patients of the data set's own test part.
        patients_given: True if the user's pattern or splits define the patients.
        choices: the user's interpretations (`--read RULE=VALUE`), by rule.
        decisions: interpretations of the folder that may differ from the user's.
        notes: lines about files that were left out.
        channels: names of the channels, such as T1w and FLAIR; empty if they are not known.
    """

    root: Path
    layout: str
    reason: str
    codings: tuple[Classes, ...]
    cases: tuple[CaseFiles, ...]
    grey_ranges: tuple[tuple[int, int], ...] | None = None
    grey_levels: tuple[int, ...] = ()
    ignored: int | None = None
    test_patients: frozenset[str] = frozenset()
    patients_given: bool = False
    choices: Choices = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()
    notes: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()

    def coding(self, values: Iterable[int], where: Path | str) -> Classes:
        """Return the coding of a mask with these values; raises InputError with the file and an unknown value."""
        known = {canonical for value in values if (canonical := self.canonical(value)) != self.ignored}
        return choose_coding(known, self.codings, where)

    def canonical(self, value: int) -> int:
        """Return the label value of a grey, which may belong to a range or to a level; other values are unchanged."""
        for (low, high), canonical in zip(
            self.grey_ranges or (), self.codings[0].values if self.codings else (), strict=False
        ):
            if low <= value <= high:
                return canonical
        if self.grey_levels:
            return min(self.grey_levels, key=lambda level: (abs(level - value), -level))
        return value


def regular_files(root: Path) -> list[Path]:
    """List all regular files below `root`, sorted, without hidden files and links that lead out of the folder."""
    inside = root.resolve()
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if (
                not name.startswith(".")
                and path.is_file()
                and (not path.is_symlink() or path.resolve().is_relative_to(inside))
            ):
                files.append(path)
    return files


def files_in(folder: Path) -> list[Path]:
    """List the regular files directly in a folder, sorted by name, without hidden files and links."""
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.is_symlink() and not p.name.startswith("."))
