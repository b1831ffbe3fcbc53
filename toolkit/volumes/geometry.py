"""Array geometry: orientation, in-plane resampling, windows. One resize function serves images, labels and logits.

The module needs NumPy and SciPy only, because a deployment has no torch. It does not use scipy.ndimage.zoom, which does
not filter before it reduces.
"""

from functools import lru_cache
from typing import TypeVar

import nibabel as nib
import numpy as np
import scipy.sparse

from attunet.classes import IGNORE_LABEL

Length = TypeVar("Length", int, float)
Transform = tuple[tuple[int, int], ...]  # per array axis: the oriented axis it becomes, and +1 or -1
SPATIAL = (-3, -2, -1)  # X, Y, Z, which are last
SLICES = (0, -2, -1)  # the number, rows and columns of slices


def orientation_transform(affine: np.ndarray, orientation: str | None) -> Transform:
    """Return the permutation and flips that bring an array with this affine to `orientation` (None: no change).

    An oblique affine counts as the nearest axes, as `nibabel.io_orientation` defines them.
    """
    if orientation is None:
        return ((0, 1), (1, 1), (2, 1))
    from_here = nib.orientations.io_orientation(affine)
    change = nib.orientations.ornt_transform(from_here, nib.orientations.axcodes2ornt(orientation))
    return tuple((int(axis), int(flip)) for axis, flip in change)


def tilt_degrees(affine: np.ndarray) -> float:
    """Return the largest angle in degrees between an array axis and its body axis by `nibabel.io_orientation`."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    nearest = nib.orientations.io_orientation(affine)[:, 0].astype(int)
    cosines = np.abs(directions[nearest, range(3)])
    return float(np.degrees(np.arccos(np.clip(cosines.min(), 0, 1))))


def shear_degrees(affine: np.ndarray) -> float:
    """Return the largest deviation in degrees from a right angle between two axes of the array."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs(directions.T @ directions - np.eye(3))
    return float(np.degrees(np.arcsin(np.clip(cosines.max(), 0, 1))))


def orient(array: np.ndarray, transform: Transform) -> np.ndarray:
    """Return a view of `array` (..., X, Y, Z) with its last three axes permuted and flipped."""
    return np.moveaxis(_flipped(array, transform), SPATIAL, [axis - 3 for axis, _ in transform])


def unorient(array: np.ndarray, transform: Transform) -> np.ndarray:
    """Invert `orient`: return a view (..., X, Y, Z) on the native axes."""
    return _flipped(np.moveaxis(array, [axis - 3 for axis, _ in transform], SPATIAL), transform)


def _flipped(array: np.ndarray, transform: Transform) -> np.ndarray:
    x, y, z = (slice(None, None, flip) for _, flip in transform)
    return array[..., x, y, z]


def oriented_spacing(spacing: tuple[Length, Length, Length], transform: Transform) -> tuple[Length, Length, Length]:
    """Return the voxel size, or the shape, along the oriented axes."""
    x, y, z = (value for _, value in sorted(zip((axis for axis, _ in transform), spacing, strict=True)))
    return x, y, z


def to_slices(array: np.ndarray, transform: Transform, slice_axis: int) -> np.ndarray:
    """Return a view of (..., X, Y, Z) as slices (Z', ..., rows, columns).

    The row index counts along the later of the two in-plane axes.
    """
    return np.moveaxis(orient(array, transform), _axes(slice_axis), SLICES)


def from_slices(slices: np.ndarray, transform: Transform, slice_axis: int) -> np.ndarray:
    """Invert `to_slices`: return a view (..., X, Y, Z) on the native axes."""
    return unorient(np.moveaxis(slices, SLICES, _axes(slice_axis)), transform)


def _axes(slice_axis: int) -> list[int]:
    """Return the oriented axes of a slice's number, rows and columns, counted from the last."""
    return [slice_axis - 3, *(axis - 3 for axis in (2, 1, 0) if axis != slice_axis)]


@lru_cache(maxsize=64)
def _triangle_filter(n_in: int, n_out: int) -> scipy.sparse.csr_matrix:
    """Return the `(n_out, n_in)` matrix of linear interpolation, wider when reducing so that it does not alias.

    Both grids cover the same field of view (half-pixel centres). Every row sums to 1, at the edges too.
    """
    support = max(1.0, n_in / n_out)
    centre = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
    first = np.floor(centre - support).astype(int) + 1
    columns = first[:, None] + np.arange(int(np.ceil(2 * support)) + 1)
    weights = np.maximum(0.0, 1 - np.abs(columns - centre[:, None]) / support)
    weights[(columns < 0) | (columns >= n_in)] = 0
    weights /= weights.sum(1, keepdims=True)
    rows = np.broadcast_to(np.arange(n_out)[:, None], columns.shape)
    kept = weights > 0
    matrix = scipy.sparse.csr_matrix((weights[kept], (rows[kept], columns[kept])), shape=(n_out, n_in))
    return matrix.astype(np.float32)


def resize_linear(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize the last two axes of finite numbers `(..., H, W)` to float32 `(..., *shape)`.

    The filter is a separable triangle: two sparse matrix products per plane.
    """
    height, width = array.shape[-2:]
    planes = np.asarray(array, dtype=np.float32).reshape(-1, height, width)
    if (height, width) == tuple(shape):
        return planes.reshape(array.shape).copy()
    down, across = _triangle_filter(height, shape[0]), _triangle_filter(width, shape[1])
    result = np.empty((len(planes), *shape), dtype=np.float32)
    for plane, out in zip(planes, result, strict=True):
        out[...] = (across @ (down @ plane).T).T
    return result.reshape(*array.shape[:-2], *shape)


def resize_labels(labels: np.ndarray, shape: tuple[int, int], num_classes: int) -> np.ndarray:
    """Resize class indices uint8 (..., H, W): each new pixel gets the class that covers most of its area.

    `IGNORE_LABEL` counts as a class of its own. The lower index wins a tie.
    """
    if labels.shape[-2:] == tuple(shape):
        return labels.astype(np.uint8)
    present = [c for c in (*range(num_classes), IGNORE_LABEL) if (labels == c).any()]
    best = np.full((*labels.shape[:-2], *shape), -1.0, dtype=np.float32)
    result = np.zeros(best.shape, dtype=np.uint8)
    for label in present:
        share = resize_linear(labels == label, shape)
        wins = share > best
        best[wins] = share[wins]
        result[wins] = label
    return result


def place(array: np.ndarray, shape: tuple[int, int], offset: tuple[int, int], fill: float | np.ndarray) -> np.ndarray:
    """Place an array `(..., H, W)` in a new one of its dtype, `(..., *shape)`, from a row and a column of it on.

    What lies outside is cropped. `fill` is the value of all other pixels, or an array that broadcasts against
    `(..., *shape)`, such as one value per channel `(C, 1, 1)`.
    """
    result = np.empty((*array.shape[:-2], *shape), dtype=array.dtype)
    result[...] = fill
    spans = zip(offset, array.shape[-2:], shape, strict=True)
    (rows, from_rows), (columns, from_columns) = (_overlap(*span) for span in spans)
    result[..., rows, columns] = array[..., from_rows, from_columns]
    return result


def _overlap(start: int, length: int, room: int) -> tuple[slice, slice]:
    """Overlap an axis that begins at `start` with `room` pixels: a slice of the room, and a slice of the axis."""
    low = max(start, 0)
    high = max(min(start + length, room), low)
    return slice(low, high), slice(low - start, high - start)


def window_offset(array_shape: tuple[int, ...], shape: tuple[int, int]) -> tuple[int, int]:
    """Return the offset at which `place` centres an array (..., H, W) in a window; negative where it is cropped."""
    return (shape[0] - array_shape[-2]) // 2, (shape[1] - array_shape[-1]) // 2


def round_up(n: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is at least `n`."""
    return -(-n // multiple) * multiple


def resampled_length(n: int, spacing: float, target: float | None) -> int:
    """Return the number of pixels (at least 1) after resampling `n` of `spacing` to `target` (None: unchanged)."""
    return n if target is None else max(1, round(n * spacing / target))
