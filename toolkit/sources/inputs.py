"""What a user may hand to a model: one volume, or a folder of them, in any format and layout that is read here."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from attunet.errors import InputError
from attunet.io.dicom import is_dicom
from attunet.io.readers import is_readable, read_volume, stem_of
from attunet.sources.case_files import files_in, regular_files
from attunet.sources.find_cases import find_cases
from attunet.sources.layouts.matching import CHANNEL, MASK_ENDING
from attunet.sources.read_case import read_image
from attunet.volumes.volume import Volume

WITH_IMAGE_FOLDERS = ("chaos-mr", "chaos-ct", "decathlon", "images-labels")  # layouts in which names alone do not tell masks


@dataclass(frozen=True)
class Input:
    """One volume. name: its path below the folder that was given, without ending (`site/scan`); files: one, or one per channel."""

    name: str
    files: tuple[Path, ...]

    def read(self, num_channels: int) -> Volume:
        """The volume for a model of so many channels."""
        return read_volume(self.files[0], channels=num_channels) if len(self.files) == 1 else read_image(self.files)


def find_inputs(path: Path, num_channels: int = 1) -> list[Input]:
    """The volumes at a path: a file, the folder of a DICOM series, a data set in a known layout (its images alone), or any folder.

    `X_0000.nii.gz`, `X_0001.nii.gz`, ... are one volume for a model of several channels. Masks (`X-mask`, `X_seg`, ...) are left out.
    Raises InputError where there is nothing to read.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_file():
        return [Input(stem_of(path), _channels(path, num_channels))]
    if any(is_dicom(file) for file in files_in(path)):
        return [Input(path.name, (path,))]
    try:
        found = find_cases(path)
    except InputError:
        found = None
    if found is not None and found.layout in WITH_IMAGE_FOLDERS:
        return [Input(case.case, case.images) for case in found.cases]
    inputs = _any_folder(path, num_channels, {label for case in found.cases for label in case.labels} if found else set())
    if not inputs:
        raise InputError(f"{path}: the folder has no volume (NIfTI, DICOM, PNG, TIFF, JPEG, BMP or GIF)")
    return inputs


def _channels(path: Path, num_channels: int) -> tuple[Path, ...]:
    """The file, with the others of its volume where its name says that it is the first channel."""
    stem = stem_of(path)
    if num_channels == 1 or not re.fullmatch(r".+_0000", stem):
        return (path,)
    names = [f"{stem[:-4]}{channel:04d}{path.name[len(stem) :]}" for channel in range(num_channels)]
    siblings = tuple(path.with_name(name) for name in names)
    return siblings if all(p.is_file() for p in siblings) else (path,)


def _any_folder(root: Path, num_channels: int, masks: Collection[Path]) -> list[Input]:
    groups: dict[str, list[Path]] = {}
    images: dict[str, Path] = {}
    for path in regular_files(root):
        folder, stem = path.parent.relative_to(root).as_posix(), stem_of(path)
        prefix = "" if folder == "." else f"{folder}/"
        if path.name.lower().endswith(".dcm") or (not is_readable(path) and is_dicom(path)):  # scanners' exports often have no endings
            groups[folder if folder != "." else root.name] = [path.parent]
        elif is_readable(path) and path not in masks and not MASK_ENDING.fullmatch(stem):
            images[prefix + stem] = path
    return [Input(name, tuple(files)) for name, files in sorted({**groups, **_joined(images, num_channels)}.items())]


def _joined(images: Mapping[str, Path], num_channels: int) -> dict[str, list[Path]]:
    """Files by volume: nnU-Net's X_0000, X_0001, ... are one where they are the channels of the model, or all end in _0000."""
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
