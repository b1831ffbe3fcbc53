"""Inputs of a model: one volume or a folder of volumes, in any supported format and layout."""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from attunet.decisions import Choices
from attunet.errors import InputError
from attunet.io.dicom.file import is_dicom
from attunet.io.readers import FORMAT_NAMES, NOTHING, is_readable, read_volume, stem_of
from attunet.sources.case_files import Source, files_in, regular_files
from attunet.sources.find_cases import SourceOptions, find_cases
from attunet.sources.layouts.matching import CHANNEL, names_a_mask
from attunet.sources.read_case import read_image
from attunet.volumes.volume import Volume

# Layouts whose images and masks differ in their names; in others the layout is needed
NAMES_ARE_ENOUGH = ("src-mask", "suffix")


@dataclass(frozen=True)
class Input:
    """One volume.

    Args:
        name: path below the input folder, without ending (`site/scan`).
        files: one file, or one for each channel.
        choices: the user's interpretations (`--read RULE=VALUE`), by rule.
    """

    name: str
    files: tuple[Path, ...]
    choices: Choices = field(default_factory=dict)

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
    if path.is_file():
        return [Input(stem_of(path), _channels(path, num_channels), choices)]
    if any(is_dicom(file) for file in files_in(path)):
        return [Input(path.name, (path,), choices)]
    source = _known_layout(path)
    if source is not None and source.layout not in NAMES_ARE_ENOUGH:
        return [Input(case.case, case.images, choices) for case in source.cases]
    masks = {label for case in source.cases for label in case.labels} if source else set()
    inputs = _one_case(path, num_channels) or _any_folder(path, num_channels, masks)
    if not inputs:
        raise InputError(f"{path}: the folder has no volume; the formats are {FORMAT_NAMES}")
    return [Input(name, files, choices) for name, files in inputs]


def _known_layout(path: Path) -> Source | None:
    try:
        return find_cases(path, SourceOptions())
    except InputError:
        return None


def _one_case(folder: Path, num_channels: int) -> list[tuple[str, tuple[Path, ...]]]:
    """Find one case in a folder: a file for each channel of the model, by name (X-t1c, X-t1n, ...), beside X-seg."""
    files = [path for path in files_in(folder) if is_readable(path) and not names_a_mask(stem_of(path))]
    start = os.path.commonprefix([path.name for path in files])  # noqa: RUF071 (names, not paths)
    is_one = (
        1 < num_channels == len(files)
        and re.search(r"\d", start) is not None
        and not re.fullmatch(r".+_0000", stem_of(files[0]))
    )
    return [(folder.name, tuple(files))] if is_one else []


def _channels(path: Path, num_channels: int) -> tuple[Path, ...]:
    """The file, with the others of its volume where its name says that it is the first channel."""
    stem = stem_of(path)
    if num_channels == 1 or not re.fullmatch(r".+_0000", stem):
        return (path,)
    names = [f"{stem[:-4]}{channel:04d}{path.name[len(stem) :]}" for channel in range(num_channels)]
    siblings = tuple(path.with_name(name) for name in names)
    return siblings if all(p.is_file() for p in siblings) else (path,)


def _any_folder(root: Path, num_channels: int, masks: Collection[Path]) -> list[tuple[str, tuple[Path, ...]]]:
    """Names and files of every volume below a folder that no layout describes."""
    series: dict[str, list[Path]] = {}
    images: dict[str, Path] = {}
    called_masks: dict[str, Path] = {}
    for path in regular_files(root):
        relative = path.relative_to(root)
        folder = relative.parent.as_posix()
        # Scanners' exports often have no endings
        if path.name.lower().endswith(".dcm") or (not is_readable(path) and is_dicom(path)):
            series[folder if folder != "." else root.name] = [path.parent]
        elif is_readable(path) and path not in masks:
            parts = (*relative.parts[:-1], stem_of(path))
            (called_masks if any(names_a_mask(part) for part in parts) else images)["/".join(parts)] = path
    images = images or ({} if series else called_masks)  # if all files are named like masks, the names mean nothing
    return [(name, tuple(files)) for name, files in sorted({**series, **_joined(images, num_channels)}.items())]


def _joined(images: Mapping[str, Path], num_channels: int) -> dict[str, list[Path]]:
    """Group files by volume: nnU-Net's X_0000, X_0001, ... if they are the channels of the model,
    or all end in _0000.
    """
    numbers: defaultdict[str, list[str]] = defaultdict(list)
    for stem in images:
        if match := CHANNEL.fullmatch(stem):
            numbers[match[1]].append(stem)
    all_first = all(stem.endswith("_0000") for stem in images)
    volumes: defaultdict[str, list[Path]] = defaultdict(list)
    for stem, path in sorted(images.items()):
        match = CHANNEL.fullmatch(stem)
        whole = match and sorted(numbers[match[1]]) == [f"{match[1]}_{channel:04d}" for channel in range(num_channels)]
        volumes[match[1] if match and (whole or all_first) else stem].append(path)
    return dict(volumes)
