"""Input and output of a graph that takes a whole volume and gives its label map."""

from dataclasses import dataclass

import numpy as np

from attunet.classes import Classes
from attunet.volumes.geometry import oriented_spacing, to_slices
from attunet.volumes.intensity import check_finite
from attunet.volumes.slices import Grid, assemble, make_grid, with_channels
from attunet.volumes.spec import PreprocessSpec
from attunet.volumes.volume import Volume


@dataclass(frozen=True, eq=False)
class OrientedVolume:
    """A volume as oriented slices, in its own intensities and resolution, with the grid that leads back."""

    data: np.ndarray  # float32 `(C, Z, Y, X)`: slices along Z, rows along Y, columns along X
    spacing: np.ndarray  # voxel size along Z, Y and X, float32 `(3,)`
    grid: Grid


def orient_volume(volume: Volume, spec: PreprocessSpec) -> OrientedVolume:
    """Orient a volume and cut it into slices, without interpolation. Raises InputError if the number of channels is
    wrong, a voxel is not finite, or slices are too large.
    """
    volume = with_channels(volume, spec.num_channels)
    grid = make_grid(volume, spec)
    channels = [to_slices(channel, grid.transform, grid.slice_axis) for channel in volume.data]
    data = np.stack(channels).astype(np.float32)
    check_finite(data)
    if spec.normalization == "none" and np.issubdtype(volume.data.dtype, np.integer):
        limits = np.iinfo(volume.data.dtype)
        data /= np.float32(float(limits.max) - float(limits.min))
    return OrientedVolume(data, _spacing(grid, spec), grid)


def _spacing(grid: Grid, spec: PreprocessSpec) -> np.ndarray:
    """Return the spacing in float32, adjusted if its rounding would change the number of resampled pixels."""
    native = oriented_spacing(grid.native_spacing, grid.transform)
    columns, rows = (axis for axis in range(3) if axis != grid.slice_axis)
    spacing = np.array([native[axis] for axis in (grid.slice_axis, rows, columns)], dtype=np.float32)
    if spec.spacing_mm is not None:
        for index, (length, resampled) in enumerate(zip(grid.plane_shape, grid.resampled_shape, strict=True), start=1):
            pixels = np.round(np.float32(length) * spacing[index] / np.float32(spec.spacing_mm))
            if max(1, int(pixels)) != resampled:
                spacing[index] = resampled * spec.spacing_mm / length
    return spacing


def class_indices(labels: np.ndarray, classes: Classes, grid: Grid) -> np.ndarray:
    """Convert label values `(Z, Y, X)` of oriented slices to class indices uint8 `(X, Y, Z)` on the native axes."""
    order = np.argsort(classes.values)
    indices = order[np.searchsorted(np.array(classes.values)[order], labels)].astype(np.uint8)
    return assemble(indices, grid)
