"""Memory and computation that a scan will need, from its header alone."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attunet.errors import TooLarge
from attunet.export.artefact.artefact import Artefact
from attunet.export.runtime.array_volume import volume_of_array
from attunet.export.serve.settings import MB, Settings
from attunet.io.headers import count_voxels
from attunet.io.nifti import NIFTI_SUFFIXES, nifti_volume
from attunet.volumes.predict import check_megapixels, slices_in_batch
from attunet.volumes.slices import make_grid
from attunet.volumes.volume import Volume

BATCH = 8
LABEL_BYTES = 24  # a voxel's class, its copies while the label map is finished, and its part's number
FLOAT_BYTES = 24  # a voxel's copies while percentiles of floats are taken
WHOLE_BYTES = 16  # a voxel's copies in a graph that takes whole volumes
FEATURE_BYTES = 64  # of a pixel, for each channel of the network's finest level: all levels' features that live at once
USUAL_WIDTH = 64  # of an artefact without this field


def feature_bytes(artefact: Artefact) -> int:
    """Memory that a network takes for each pixel of a batch."""
    width = artefact.network_settings.get("base_width")
    return FEATURE_BYTES * (width if isinstance(width, int) else USUAL_WIDTH)


def voxel_bytes(dtype: np.dtype, num_channels: int, artefact: Artefact) -> int:
    """Memory for each voxel of a scan, over all its channels."""
    copies = FLOAT_BYTES if dtype.itemsize > 2 else 4
    return num_channels * (2 * dtype.itemsize + copies + (WHOLE_BYTES if artefact.whole else 0)) + LABEL_BYTES


def memory_of(volume: Volume, artefact: Artefact) -> float:
    """MB beyond the loaded models at most for a volume of this shape, type and affine; its voxels are not read."""
    grid = make_grid(volume, artefact.spec)
    pixels, native = math.prod(grid.window), math.prod(grid.plane_shape)
    batch, num_classes = slices_in_batch(grid.window, BATCH), len(artefact.classes)
    per_pixel = 4 * (2 * artefact.spec.in_channels + 3 * num_classes) + feature_bytes(artefact)
    voxels = grid.num_slices * native * voxel_bytes(volume.data.dtype, len(volume.data), artefact)
    return (voxels + batch * (pixels * per_pixel + native * 12 * num_classes)) / MB


def check_header(files: Sequence[Path], artefact: Artefact, settings: Settings) -> None:
    """Refuses files, one for each channel, whose headers announce more than a scan may need; no voxel is read."""
    needed = 0
    for number, file in enumerate(files):
        labels = LABEL_BYTES if number == 0 else 0
        if file.name.lower().endswith(NIFTI_SUFFIXES):
            volume = nifti_volume(file)
            check_volume(volume, artefact, settings)
            voxels, dtype, labels = volume.data.size, volume.data.dtype, 0
        else:
            voxels, dtype = count_voxels(file)
        needed += voxels * (voxel_bytes(dtype, 1, artefact) - LABEL_BYTES + labels)
    _check_memory(needed / MB, settings)


def check_volume(volume: Volume, artefact: Artefact, settings: Settings) -> None:
    """Raises TooLarge where a volume needs more memory, or has more pixels on the network's grid, than it may."""
    _check_memory(memory_of(volume, artefact), settings)
    check_megapixels(volume, artefact.spec, settings.max_megapixels)


def check_oriented(shape: Sequence[int], spacing: Sequence[float], artefact: Artefact, settings: Settings) -> None:
    """As `check_volume`, for a float32 volume that is oriented already: `shape` and `spacing` of (Z, Y, X)."""
    spec = artefact.spec
    columns, rows = (axis for axis in range(3) if axis != spec.slice_axis)
    order = [(spec.slice_axis, rows, columns).index(axis) for axis in range(3)]
    data = np.broadcast_to(np.float32(0), (spec.num_channels, *(shape[place] for place in order)))
    x, y, z = (spacing[place] for place in order)
    check_volume(volume_of_array(data, (x, y, z), spec.orientation or "RAS"), artefact, settings)


def _check_memory(memory_mb: float, settings: Settings) -> None:
    if memory_mb > settings.max_memory_mb:
        raise TooLarge(
            f"scan: would need {memory_mb:,.0f} MB of memory, at most {settings.max_memory_mb:,} are allowed"
        )
