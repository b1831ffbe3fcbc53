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
        case: its name.
        patient: its patient; folds are by patient.
        images: one file for each channel, one with all channels, or the folder of a DICOM series.
        labels: none; one mask, or a folder with a mask for each DICOM slice; or several masks, one for each object or class.
        drawn: names of the classes that were drawn; None for all of them.
        label_values: the label value that each mask's foreground becomes; empty where the masks' own values count.
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
        codings: possible codings of the label values, all with the same names; none: the masks' own values become the classes.
        cases: the files of every case.
        grey_ranges: for each class of a coding, the values that count as it, for masks that went through image formats.
        grey_levels: values to which the greys of smoothed edges belong; empty: none are smoothed.
        ignored: a label value that no loss and no metric counts.
        test_patients: patients of the data set's own test part.
        patients_given: True where the user's pattern or splits say which cases are of one patient.
        choices: the user's readings (`--read RULE=VALUE`).
        decisions: readings of the folder that could be others.
        notes: lines about files that were left out.
        channels: names of the channels, such as T1w and FLAIR; empty where nothing says them.
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
        """The coding that a mask with these values uses. Raises InputError with the file and the value that is unknown."""
        known = {canonical for value in values if (canonical := self.canonical(value)) != self.ignored}
        return choose_coding(known, self.codings, where)

    def canonical(self, value: int) -> int:
        """The label value that `value` stands for, where greys are decoded by range or belong to a level."""
        for (low, high), canonical in zip(self.grey_ranges or (), self.codings[0].values if self.codings else (), strict=False):
            if low <= value <= high:
                return canonical
        if self.grey_levels:
            return min(self.grey_levels, key=lambda level: (abs(level - value), -level))
        return value


def regular_files(root: Path) -> list[Path]:
    """Every regular file below `root`, sorted; hidden ones and links that lead out of the folder are left out."""
    inside = root.resolve()
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file() and (not path.is_symlink() or path.resolve().is_relative_to(inside)):
                files.append(path)
    return files


def files_in(folder: Path) -> list[Path]:
    """The regular files directly in a folder, sorted by name; hidden ones and links are left out."""
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.is_symlink() and not p.name.startswith("."))
