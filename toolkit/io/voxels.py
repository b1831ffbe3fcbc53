"""Voxels behind a header of nibabel's: memory is taken as the file fills it, and scaling works on a part at a time."""

from io import BufferedReader
from typing import BinaryIO, cast

import numpy as np
from nibabel.analyze import AnalyzeHeader
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.volumeutils import apply_read_scaling

from attunet.io.gzip_file import read_to_end

BLOCK = 2**20  # voxels that are scaled at once


def read_voxels(file: BinaryIO, header: AnalyzeHeader | MGHHeader) -> np.ndarray:
    """Read the voxels of a file, as its header scales them.

    nibabel's own reading fills memory with zeros for all that the header claims, and scales in float64.

    Returns:
        The header's shape, in its type, or float32 where it scales them.

    Raises EOFError for fewer voxels than the header says, and OSError or zlib.error for a gzip that is damaged, in the
    voxels or behind them.
    """
    shape = header.get_data_shape()
    stored = np.empty(int(np.prod(shape, dtype=object)), header.get_data_dtype())
    file.seek(header.get_data_offset())
    if (present := cast(BufferedReader, file).readinto(stored.view(np.uint8).data)) < stored.nbytes:
        raise EOFError(f"Expected {stored.nbytes} bytes, got {present} bytes")
    read_to_end(file)
    stated = header.get_slope_inter()
    slope, intercept = (1.0 if stated[0] is None else stated[0]), (0.0 if stated[1] is None else stated[1])
    if (slope, intercept) != (1, 0):
        scaled = np.empty(stored.shape, np.float32)
        for start in range(0, stored.size, BLOCK):
            part = slice(start, start + BLOCK)
            scaled[part] = apply_read_scaling(stored[part], np.float64(slope), np.float64(intercept))
        stored = scaled
    return stored.reshape(shape, order="F")
