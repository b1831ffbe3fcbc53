"""Memory and computing that a scan will need, from its header alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attunet.export.artefact.artefact import Artefact
from attunet.export.serve.refusal import TOO_LARGE, Refusal
from attunet.export.serve.settings import MB, Settings
from attunet.io.headers import count_voxels, nifti_volume
from attunet.io.nifti import NIFTI_SUFFIXES
from attunet.volumes.geometry import resampled_length, round_up
from attunet.volumes.predict import MAX_BATCH_PIXELS
from attunet.volumes.slices import make_grid
from attunet.volumes.spec import MULTIPLE
from attunet.volumes.volume import Volume

BATCH = 8
LABEL_BYTES = 24  # a voxel's class, its copies while the label map is finished, and its part's number
FLOAT_BYTES = 24  # a voxel's copies while percentiles of floats are taken
WHOLE_BYTES = 16  # a voxel's copies in a graph that takes whole volumes
FEATURE_BYTES = 64  # of a pixel, for each channel of the network's finest level: all levels' features that live at once
USUAL_WIDTH = 64  # of an artefact that does not say it


@dataclass(frozen=True)
class Needs:
    """memory_mb: peak beyond the loaded models. megapixels: that go through the network, over all slices."""

    memory_mb: float
    megapixels: float


def feature_bytes(artefact: Artefact) -> int:
    """Memory that a network takes for each pixel of a batch."""
    model = artefact.config.get("model")
    width = model.get("base_width") if isinstance(model, dict) else None
    return FEATURE_BYTES * (width if isinstance(width, int) else USUAL_WIDTH)


def voxel_bytes(dtype: np.dtype, num_channels: int, artefact: Artefact) -> int:
    """Memory for each voxel of a scan, over all its channels."""
    copies = FLOAT_BYTES if dtype.itemsize > 2 else 4
    return num_channels * (2 * dtype.itemsize + copies + (WHOLE_BYTES if artefact.whole else 0)) + LABEL_BYTES


def needs_of(volume: Volume, artefact: Artefact) -> Needs:
    """An upper bound for a volume of this shape, type and affine; its voxels are not looked at."""
    grid = make_grid(volume, artefact.spec)
    return _needs(grid.num_slices, grid.plane_shape, grid.window, len(volume.data), volume.data.dtype, artefact)


def needs_of_oriented(shape: tuple[int, int, int], spacing: tuple[float, float, float], artefact: Artefact) -> Needs:
    """As `needs_of`, for a float32 volume that is oriented already: `shape` and `spacing` of (Z, Y, X)."""
    spec = artefact.spec
    sides = [resampled_length(shape[axis], spacing[axis], spec.spacing_mm) for axis in (1, 2)]
    rows, columns = (max(round_up(side, MULTIPLE), least) for side, least in zip(sides, spec.size, strict=True))
    return _needs(shape[0], shape[1:], (rows, columns), spec.num_channels, np.dtype(np.float32), artefact)


def _needs(
    num_slices: int, plane: tuple[int, int], window: tuple[int, int], num_channels: int, dtype: np.dtype, artefact: Artefact
) -> Needs:
    pixels, native = window[0] * window[1], plane[0] * plane[1]
    batch, num_classes = max(1, min(BATCH, MAX_BATCH_PIXELS // pixels)), len(artefact.classes)
    per_pixel = 4 * (2 * artefact.spec.in_channels + 3 * num_classes) + feature_bytes(artefact)
    memory = num_slices * native * voxel_bytes(dtype, num_channels, artefact) + batch * (pixels * per_pixel + native * 12 * num_classes)
    return Needs(memory / MB, num_slices * pixels / MB)


def check_header(files: Sequence[Path], artefact: Artefact, settings: Settings) -> None:
    """Refuses files whose headers announce more than a scan may need, before a voxel is read."""
    for file in files:
        if file.name.endswith(NIFTI_SUFFIXES):
            check_volume(nifti_volume(file), artefact, settings)
            continue
        voxels, dtype = count_voxels(file)
        _check_memory(voxels * voxel_bytes(dtype, 1, artefact) / MB, settings)


def check_volume(volume: Volume, artefact: Artefact, settings: Settings) -> None:
    """Raises Refusal with status 413 where a volume needs more than it may."""
    voxels = f"{'×'.join(map(str, volume.shape))} voxels of {' × '.join(f'{s:g}' for s in volume.spacing)} {volume.unit}"
    check_needs(needs_of(volume, artefact), voxels, settings)


def check_needs(needs: Needs, described: str, settings: Settings) -> None:
    """Raises Refusal with status 413 for needs above the settings' limits. described: the scan, for the message."""
    _check_memory(needs.memory_mb, settings)
    if needs.megapixels > settings.max_megapixels:
        raise Refusal(
            TOO_LARGE,
            f"scan: {needs.megapixels:,.0f} megapixels would go through the network, at most {settings.max_megapixels:,} are allowed "
            f"({described})",
        )


def _check_memory(memory_mb: float, settings: Settings) -> None:
    if memory_mb > settings.max_memory_mb:
        raise Refusal(TOO_LARGE, f"scan: would need {memory_mb:,.0f} MB of memory, at most {settings.max_memory_mb:,} are allowed")
