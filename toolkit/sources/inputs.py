"""Inputs of a model: one volume or a folder of volumes, in any supported format and layout."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from attunet.decisions import Choices
from attunet.errors import InputError
from attunet.io.dicom.file import is_dicom
from attunet.io.readers import FORMAT_NAMES, NOTHING, is_readable, read_volume, stem_of
from attunet.sources.case_files import files_in, regular_files
from attunet.sources.find_cases import find_cases
from attunet.sources.layouts.matching import CHANNEL, names_a_mask
from attunet.sources.read_case import read_image
from attunet.volumes.volume import Volume

# Layouts whose images and masks differ in their names; in others the layout is needed
NAMES_ARE_ENOUGH = ("src-mask", "suffix")

Volumes = Mapping[str, tuple[Path, ...]]  # name below the input folder -> its file, or one for each channel
Cases = dict[Path, str]


@dataclass(frozen=True)
class Input:
    """One volume.

    Args:
        name: path below the input folder, without ending (`site/scan`).
        files: one file, or one for each channel.
        choices: the user's interpretations (`--read RULE=VALUE`), by rule.
        case: name of the case that a store has of these files, as far as they tell; empty if it is `name`.
    """

    name: str
    files: tuple[Path, ...]
    choices: Choices = field(default_factory=dict)
    case: str = ""

    def read(self, num_channels: int) -> Volume:
        """Read the volume for a model with `num_channels` channels; raises InputError as `read_volume` does."""
        if len(self.files) > 1:
            return read_image(self.files, choices=self.choices)
        return read_volume(self.files[0], channels=num_channels, choices=self.choices)


def find_inputs(path: Path, num_channels: int = 1, choices: Choices = NOTHING) -> list[Input]:
    """Find the volumes at a path, without masks (`X-mask`, `X_seg`, `segmentations/`, ...).

    Args:
        path: a file, the folder of a DICOM series, a data set in a known layout (its images alone), or any folder.
        num_channels: channels of the model; if there are several, `X_0000.nii.gz`, `X_0001.nii.gz`, ... are one volume.
        choices: the user's interpretations, by rule.

    Raises:
        InputError: there is nothing to read.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: must be a file or a folder; reading a pipe or a device might never end")
    cases: Cases = {}
    if path.is_file():
        volumes: Volumes = {stem_of(path): _channels(path, num_channels)}
    elif any(is_dicom(file) for file in files_in(path)):
        volumes = {path.name: (path,)}
    else:
        volumes, cases = _in_folder(path, num_channels)
    if not volumes:
        raise InputError(f"{path}: the folder has no volume; the formats are {FORMAT_NAMES}")
    return [Input(name, files, choices, cases.get(files[0], _case_of(name))) for name, files in volumes.items()]


def _case_of(name: str) -> str:
    """`X` of `X-src` and of nnU-Net's `X_0000`, which name one volume; the folders before the name stay."""
    return unicodedata.normalize("NFC", re.sub(r"(?i)(?<=[^/])(-src|_0000)$", "", name))


def _in_folder(path: Path, num_channels: int) -> tuple[Volumes, Cases]:
    """The volumes, and the names of the cases that their first files belong to, where the layout tells them."""
    try:
        source = find_cases(path)
    except InputError:
        return _one_case(path, num_channels) or _any_folder(path, num_channels, set()), {}
    cases = {case.images[0]: case.case for case in source.cases}
    if source.layout not in NAMES_ARE_ENOUGH:
        return {case.case: case.images for case in source.cases}, cases
    masks = {label for case in source.cases for label in case.labels}
    return _one_case(path, num_channels) or _any_folder(path, num_channels, masks), cases


def _one_case(folder: Path, num_channels: int) -> Volumes:
    """Find one case in a folder: a file for each channel of the model, by name (X-t1c, X-t1n, ...), beside X-seg."""
    files = [path for path in files_in(folder) if is_readable(path) and not names_a_mask(stem_of(path))]
    if len(files) != num_channels or num_channels == 1 or stem_of(files[0]).endswith("_0000"):
        return {}
    start = os.path.commonprefix([path.name for path in files])  # noqa: RUF071 (names, not paths)
    return {folder.name: tuple(files)} if re.search(r"\d", start) else {}


def _channels(path: Path, num_channels: int) -> tuple[Path, ...]:
    """The file, with the others of its volume where its name says that it is the first channel."""
    stem = stem_of(path)
    if num_channels == 1 or not re.fullmatch(r".+_0000", stem):
        return (path,)
    names = [f"{stem[:-4]}{channel:04d}{path.name[len(stem) :]}" for channel in range(num_channels)]
    siblings = tuple(map(path.with_name, names))
    return siblings if all(sibling.is_file() for sibling in siblings) else (path,)


def _any_folder(root: Path, num_channels: int, masks: Collection[Path]) -> Volumes:
    """Names and files of every volume below a folder that no layout describes, in the order of the names."""
    series: dict[str, tuple[Path, ...]] = {}
    images: dict[str, Path] = {}
    called_masks: dict[str, Path] = {}
    for path in regular_files(root):
        relative = path.relative_to(root)
        # Scanners' exports often have no endings
        if path.name.lower().endswith(".dcm") or (not is_readable(path) and is_dicom(path)):
            series[relative.parent.as_posix() if len(relative.parts) > 1 else root.name] = (path.parent,)
        elif is_readable(path) and path not in masks:
            parts = (*relative.parts[:-1], stem_of(path))
            (called_masks if any(map(names_a_mask, parts)) else images)["/".join(parts)] = path
    images = images or ({} if series else called_masks)  # if all files are named like masks, the names mean nothing
    return dict(sorted({**series, **_joined(images, num_channels)}.items()))


def _joined(images: Mapping[str, Path], num_channels: int) -> Volumes:
    """Group files by volume: nnU-Net's X_0000, X_0001, ... if these are the model's channels or all end in _0000."""
    volume_of = {stem: match[1] if (match := CHANNEL.fullmatch(stem)) else stem for stem in images}
    stems_of: defaultdict[str, list[str]] = defaultdict(list)
    for stem, volume in volume_of.items():
        if stem != volume:
            stems_of[volume].append(stem)
    all_first = all(stem.endswith("_0000") for stem in images)
    volumes: defaultdict[str, tuple[Path, ...]] = defaultdict(tuple)
    for stem, path in sorted(images.items()):
        volume = volume_of[stem]
        whole = sorted(stems_of[volume]) == [f"{volume}_{channel:04d}" for channel in range(num_channels)]
        volumes[volume if whole or all_first else stem] += (path,)
    return dict(volumes)
