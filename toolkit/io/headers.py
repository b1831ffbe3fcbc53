"""Sizes of images from their headers alone, before memory is reserved; reading checks the rest."""

import math
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import numpy as np

from attunet.errors import InputError
from attunet.io.dicom.bounded_reads import TooManyElements
from attunet.io.dicom.file import dataset_of, is_dicom
from attunet.io.dicom.series import series_files
from attunet.io.itk.itk import ITK_SUFFIXES, read_itk_header
from attunet.io.mgh_analyze import ANALYZE_SUFFIXES, MGH_SUFFIXES, analyze_header, mgh_header
from attunet.io.pictures.images import IMAGE_SUFFIXES
from attunet.io.pictures.opening import num_values, opened, pillow
from attunet.io.readers import COMPANIONS, files_of
from attunet.io.reading import FILE_ERRORS

UNKNOWN = (0, np.dtype(np.float32))  # of a format whose reader bounds it by the file's size


def count_voxels(path: Path) -> tuple[int, np.dtype]:
    """Voxels of all channels and pages, and their type, of a file of any format but NIfTI, or of a folder of DICOM.

    A header that cannot be read counts as nothing: the reader says what is wrong with it. Raises TooManyElements for
    DICOM that is made to take time.
    """
    name = path.name.lower()
    try:
        if path.is_dir():
            files = series_files(path)
            return sum(_frame_voxels(file, len(files)) for file in files), np.dtype(np.float32)
        if name.endswith(IMAGE_SUFFIXES):
            with suppress(pillow(path).DecompressionBombError), opened(path) as (image, num_pages):
                return num_values(image) * num_pages, np.dtype(np.uint8)
        if name.endswith((*MGH_SUFFIXES, *ANALYZE_SUFFIXES)):
            header, _ = (mgh_header if name.endswith(MGH_SUFFIXES) else analyze_header)(path)
            return int(np.prod(header.get_data_shape(), dtype=object)), header.get_data_dtype()
        if name.endswith(ITK_SUFFIXES):
            stored = read_itk_header(path)
            return stored.num_voxels, stored.dtype
        if is_dicom(path):
            return _frame_voxels(path), np.dtype(np.float32)
    except TooManyElements:
        raise
    except (*FILE_ERRORS, ImportError, InputError):
        pass
    return UNKNOWN


def voxels_without_header(files: Collection[Path]) -> set[Path]:
    """The files of voxels (`.raw`, `.img`) that no header among these files names. A damaged header names none."""
    voxels = {path for path in files if path.name.lower().endswith(COMPANIONS)}
    return voxels.difference(*(files_of(path)[1:] for path in files if voxels))


def _frame_voxels(path: Path, num_files: int = 1) -> int:
    try:
        with dataset_of(path, num_files) as header:
            sides = (header.get("Rows", 0), header.get("Columns", 0), header.get("NumberOfFrames") or 1)
            return math.prod(max(0, int(side)) for side in sides)
    except TooManyElements:
        raise
    except InputError:
        return 0  # this file alone: others of its series may hold gigabytes
