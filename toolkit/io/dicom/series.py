"""One DICOM series, a file per slice or one of many frames: its geometry, its pixels, and a hash of the PatientID."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attunet.decisions import Decision, choice
from attunet.errors import InputError
from attunet.io.dicom.bounded_reads import TooManyElements
from attunet.io.dicom.choose_series import RULE, choose_series, several_series
from attunet.io.dicom.file import DICOM_SUFFIXES, check_kind, dataset_of, is_dicom, lacks_preamble
from attunet.io.dicom.pixels import frames_of, room_of
from attunet.io.dicom.slices import MAX_SLICES, Slice, identity_of, patient_hash_of, places_of, rescaled
from attunet.io.dicom.stack import SeveralSeries, in_order
from attunet.io.reading import MAX_VOXELS, ReadOptions, checked_affine
from attunet.io.refusal import AGAIN, refusal
from attunet.volumes.volume import Volume


@dataclass(frozen=True)
class SliceNames:
    """The files of a series in the order of its slices, what `identity_of` says of each, and their folder.

    It is a volume's `header`: masks in files of their own find their slice by it, and a segmentation its series.
    """

    folder: Path
    names: tuple[str, ...]
    identities: tuple[tuple[str, ...], ...]


def read_series(path: Path, options: ReadOptions) -> Volume:
    """Reads a file, or the one DICOM series of a folder, in which other files and a DICOMDIR are left out.

    The volume is `(1, X, Y, Z)`, X along a row's columns, Y down the rows, Z along the normal; rescaled slice by slice.
    Raises InputError where slices differ in size, spacing, direction, series or patient, lie in the same place or
    unevenly, or where a file is damaged, in colour, or is no image of slices.
    """
    files = _files(path, options)
    try:
        return _read_files(path, files, options)
    except InputError as error:
        is_known = RULE in options.choices or isinstance(error, TooManyElements)
        if is_known or not (listed := several_series(files)):
            raise
        line = f"{path}: {listed}" if isinstance(error, SeveralSeries) else f"{error}; {path} {listed}"
        raise InputError(line) from None


def _read_files(path: Path, files: Sequence[Path], options: ReadOptions) -> Volume:
    if not files:
        raise InputError(f"{path}: the folder has no DICOM files")
    if len(files) > MAX_SLICES:
        raise InputError(f"{path}: at most {MAX_SLICES} slices are supported, got {len(files)}")
    slices: list[Slice] = []
    decisions: dict[Decision, None] = {}
    voxels, room = 0, room_of(files)
    for file in files:
        for one in _read_file(file, options, room, len(files)):
            slices.append(one)
            decisions |= dict.fromkeys(one.decisions)
            voxels += one.pixels.size
            room -= one.pixels.nbytes
        if voxels > MAX_VOXELS:
            raise InputError(f"{path}: at most {MAX_VOXELS:,} voxels are supported")
    if any(_without_preamble(file) for file in files):
        decisions[Decision("dicom-preamble", "files without the 128-byte preamble are read too")] = None
    slices, affine = in_order(path, slices)
    data = np.stack([s.pixels.T for s in slices], axis=-1)[None]
    if data.dtype == np.float64:
        data = data.astype(np.float32)  # slices of large integers beside rescaled ones
    folder = (path.parent if path.is_file() else path).absolute()
    names = SliceNames(folder, tuple(s.name for s in slices), tuple(s.identity for s in slices))
    affine = checked_affine(path, affine)
    return Volume(data, affine, header=names, decisions=tuple(decisions), patient_hash=slices[0].patient_hash)


def series_files(folder: Path) -> list[Path]:
    """The DICOM files directly in a folder, sorted; other files, hidden ones and DICOMDIR are left out.

    Raises InputError for what may be a slice and cannot be read: a volume would lack it.
    """
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name.upper() != "DICOMDIR")
    slices = [p for p in entries if p.is_file() and not p.is_symlink() and is_dicom(p)]
    kinds = {_kind_of(p.name) for p in slices}
    for path in sorted({*entries} - {*slices}):
        is_named = path.name.lower().endswith(DICOM_SUFFIXES) or _kind_of(path.name) in kinds
        is_special = not (path.is_file() or path.is_dir() or path.is_symlink())  # a pipe or a device
        if is_special or (is_named and path.is_symlink() and not path.is_dir()):
            raise InputError(f"{path}: must be a file of its own, no link or pipe: copy the slice, or take it away")
        if path.is_file() and (is_named or path.stat().st_size == 0):
            raise InputError(f"{path}: holds no DICOM, so a slice may be missing: {AGAIN}, or take it away")
    return slices


def _kind_of(name: str) -> str:
    """A name without what tells the slices of a series apart: their numbers, also those of hexadecimal digits alone."""
    return "0" if re.fullmatch(r"[0-9A-Fa-f._-]+", name) else re.sub("[0-9]+", "0", name)


def _files(path: Path, options: ReadOptions) -> list[Path]:
    if path.is_dir():
        files = series_files(path)
        if choice("dicom-preamble", options.choices) == "skip":
            files = [f for f in files if not _without_preamble(f)]
        return choose_series(path, files, options.choices[RULE]) if RULE in options.choices else files
    if not is_dicom(path):
        raise refusal(path, "DICOM", f"bytes 129 to 132 must be DICM; is it damaged? {AGAIN}")
    return [path]


def _without_preamble(path: Path) -> bool:
    with path.open("rb") as file:
        return lacks_preamble(file.read(132))


def _read_file(path: Path, options: ReadOptions, room: int, num_files: int) -> list[Slice]:
    """The slices of a file of a series, one or one for each frame."""
    with dataset_of(path, num_files) as dataset:
        check_kind(path, dataset)
        places = list(places_of(path, dataset))
        stored, decisions = frames_of(path, dataset, options.choices, room)
        if len(places) != len(stored):
            known = f"says where {len(places)} of its {len(stored)} frames lie"
            raise InputError(f"{path}: {known}; a volume needs all")
        identity, patient = identity_of(dataset), patient_hash_of(dataset)
    return [
        Slice(path.name, rescaled(frame, place), place, identity, patient, decisions)
        for frame, place in zip(stored, places, strict=True)
    ]
