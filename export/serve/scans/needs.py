"""Memory and computing that a scan will need, from its header alone."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attunet.export.serve.refusal import TOO_LARGE, Refusal
from attunet.export.serve.settings import MB, Settings
from attunet.io.nifti import NIFTI_SUFFIXES, read_nifti_header
from attunet.volumes.predict import MAX_BATCH_PIXELS
from attunet.volumes.slices import make_grid
from attunet.volumes.spec import PreprocessSpec
from attunet.volumes.volume import Volume

BATCH = 8
LABEL_BYTES = 24  # a voxel's class, its copies while the label map is finished, and its part's number
FLOAT_BYTES = 24  # a voxel's copies while percentiles of floats are taken
FEATURE_BYTES = 4 * 6 * 32  # a pixel's features in the network's finest level


@dataclass(frozen=True)
class Needs:
    """memory_mb: peak beyond the loaded models. megapixels: that go through the network, over all slices."""

    memory_mb: float
    megapixels: float


def needs_of(volume: Volume, spec: PreprocessSpec, num_classes: int) -> Needs:
    """An upper bound for a volume of this shape, type and affine; its voxels are not looked at."""
    grid = make_grid(volume, spec)
    window, plane = grid.window[0] * grid.window[1], grid.plane_shape[0] * grid.plane_shape[1]
    batch = max(1, min(BATCH, MAX_BATCH_PIXELS // window))
    voxels = grid.num_slices * plane
    per_voxel = len(volume.data) * (2 * volume.data.itemsize + (FLOAT_BYTES if volume.data.dtype.itemsize > 2 else 4)) + LABEL_BYTES
    per_pixel = 4 * (2 * spec.in_channels + 3 * num_classes) + FEATURE_BYTES
    memory = voxels * per_voxel + batch * (window * per_pixel + plane * 4 * 3 * num_classes)
    return Needs(memory / MB, grid.num_slices * window / MB)


def check_header(path: Path, spec: PreprocessSpec, num_classes: int, settings: Settings) -> None:
    """Refuses a NIfTI file whose header announces more than a scan may need; other formats hold no more than their size allows."""
    if not path.name.endswith(NIFTI_SUFFIXES):
        return
    header = read_nifti_header(path)
    dtype = np.dtype(np.float32) if header.is_scaled else header.dtype
    # An array of that shape that takes no memory.
    check_volume(Volume(np.broadcast_to(np.zeros((), dtype), header.shape), header.affine), spec, num_classes, settings)


def check_volume(volume: Volume, spec: PreprocessSpec, num_classes: int, settings: Settings) -> None:
    """Raises Refusal with status 413 where a volume needs more than it may."""
    needs = needs_of(volume, spec, num_classes)
    if needs.memory_mb > settings.max_memory_mb:
        raise Refusal(TOO_LARGE, f"scan: would need {needs.memory_mb:,.0f} MB of memory, at most {settings.max_memory_mb:,} are allowed")
    if needs.megapixels > settings.max_megapixels:
        raise Refusal(
            TOO_LARGE,
            f"scan: {needs.megapixels:,.0f} megapixels would go through the network, at most {settings.max_megapixels:,} are allowed "
            f"({'×'.join(map(str, volume.shape))} voxels of {' × '.join(f'{s:g}' for s in volume.spacing)} {volume.unit})",
        )
