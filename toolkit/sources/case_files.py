"""A source as cases: which files belong to which case, before any of them is read."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from attunet.classes import Classes
from attunet.sources.codings import choose_coding


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """images: one file per channel, one with all channels, or the folder of a DICOM series.

    labels: none, one (a file, or a folder with a mask per DICOM slice), or one for each of an image's objects, which together are its mask.
    """

    case: str
    patient: str
    images: tuple[Path, ...]
    labels: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Source:
    """A user's folder as cases.

    codings: the ways in which label values may be written, all with the same names; none: the masks' own values become the classes;
    grey_ranges: per class of a coding, the values that count as it, for masks that went through image formats;
    ignored: a label value that no loss and no metric counts; frames: whether the fourth axis of a file holds channels;
    notes: what a user should know about what was taken and what was left.
    """

    root: Path
    layout: str
    reason: str
    codings: tuple[Classes, ...]
    cases: tuple[CaseFiles, ...]
    grey_ranges: tuple[tuple[int, int], ...] | None = None
    ignored: int | None = None
    frames: bool = False
    notes: tuple[str, ...] = ()

    def coding(self, values: Iterable[int], where: Path | str) -> Classes:
        """The coding that a mask with these values is in. Raises InputError naming the file and the value that is unknown."""
        known = {canonical for value in values if (canonical := self.canonical(value)) != self.ignored}
        return choose_coding(known, self.codings, where)

    def canonical(self, value: int) -> int:
        """The label value that `value` stands for, where greys are decoded by range."""
        for (low, high), canonical in zip(self.grey_ranges or (), self.codings[0].values if self.codings else (), strict=False):
            if low <= value <= high:
                return canonical
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
