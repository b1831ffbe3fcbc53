"""Surface Dice, weighted by area: the fraction of two surfaces that lies within a tolerance of the other one.

Definition and table of areas: Nikolov et al., Deep learning to achieve clinically applicable segmentation of head and
neck anatomy for radiotherapy (2018), as in the package surface-distance (Apache-2.0), which the Medical Segmentation
Decathlon uses. That package does not run with NumPy 2, so the computation is here.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from attunet.metrics.surface import check_masks

# A surface element lies between 2 x 2 x 2 voxels, whose 8 bits are its code; marching cubes gives it up to 4 triangles.
# For the codes 0 to 127: the absolute area vectors of the triangles for voxels of 1 mm, three digits each, in eighths
# of a square millimetre. A code and its complement have the same areas.
AREA_VECTORS = (
    "- 111 111 220220 111 202202 111111 400222111 111 111111 202202 400222111 220220 400222111 400222111 400400 111 "
    "022022 111111 040222111 111111 004222111 111111111 111222222111 111111 022022111 202202111 111333022202 "
    "111220220 333022111220 400111222111 400111222 111 111111 022022 040111222 111111 111202202 022022111 "
    "333022111202 111111 111111111 004222111 222222111111 111220220 400222111111 022333111220 400222111 220220 "
    "040222111 040111222 040040 220220111 333202111220 111040222111 040222111 111220220 040222111111 333220111202 "
    "040222111 220220220220 220220111 111220220 220220 111 111111 111111 111220220 022022 004222111 022022111 "
    "333022111220 111111 111111111 111202202 400222111111 040222111 222222111111 202333022111 400222111 202202 "
    "004222111 111202202 202333220111 004222111 004004 111111222004 111222004 202202111 004222111111 202202202202 "
    "111202202 202333220111 004222111 111202202 202202 111111 111111111 111022022 040111222111 022022111 004222111111 "
    "022022022022 022022111 111111111 111111111111 004222111111 111111111 040222111111 111111111 022022111 111111 "
    "400222111 222111222111 333022111202 040222111 333220022111 111222004 111022022 022022 400222111111 111111111 "
    "202202111 111111 220220111 111111 111111 111 "
)
BITS_3D = np.array([[[128, 64], [32, 16]], [[8, 4], [2, 1]]])
BITS_2D = np.array([[8, 4], [2, 1]])


def surface_dice(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float], tolerance_mm: float) -> float:
    """Normalised surface Dice of two masks. The edge of the image counts as surface, unlike in `surface_distances`.

    Args:
        prediction, truth: masks of one shape, 2D or 3D; an axis of length 1 is left out.
        spacing: voxel size along the axes in mm.
        tolerance_mm: distance up to which surfaces agree.

    Returns:
        Area of both surfaces within the tolerance of the other one, over their whole area; 0 if one mask is empty, NaN
        if both are. Raises InputError where masks and spacing do not fit together.
    """
    prediction, truth, sampling = check_masks(prediction, truth, spacing)
    if not (prediction.any() and truth.any()):
        return 0.0 if prediction.any() or truth.any() else float("nan")
    if truth.ndim == 1:  # a line has end points instead of a surface: measured as a contour one voxel wide
        prediction, truth, sampling = prediction[:, None], truth[:, None], [*sampling, 1.0]
    (box,) = ndimage.find_objects((prediction | truth).view(np.uint8))
    first, second = (_surface_elements(mask[box], sampling) for mask in (prediction, truth))
    within = _area_within(first, second, sampling, tolerance_mm) + _area_within(second, first, sampling, tolerance_mm)
    return float(within / (first.sum() + second.sum()))


def _surface_elements(mask: np.ndarray, sampling: Sequence[float]) -> np.ndarray:
    """The area of the surface at every corner of a voxel; one more along each axis than the mask."""
    bits, areas = (BITS_3D, _areas(sampling)) if mask.ndim == 3 else (BITS_2D, _lengths(sampling))
    codes = ndimage.correlate(np.pad(mask, [(0, 1)] * mask.ndim).astype(np.uint8), bits, mode="constant")
    return areas[codes]


def _area_within(surface: np.ndarray, other: np.ndarray, sampling: Sequence[float], tolerance_mm: float) -> float:
    distance = ndimage.distance_transform_edt(other == 0, sampling=sampling)
    return float(surface[distance <= tolerance_mm].sum())


def _areas(sampling: Sequence[float]) -> np.ndarray:
    """Area in mm^2 by code, `(256,)`."""
    x, y, z = sampling
    faces = np.array([y * z, x * z, x * y]) / 8
    vectors = [np.array([int(digit) for digit in code.strip("-")]).reshape(-1, 3) for code in AREA_VECTORS.split()]
    half = [float(np.linalg.norm(vector * faces, axis=1).sum()) for vector in vectors]
    return np.array([*half, *reversed(half)])


def _lengths(sampling: Sequence[float]) -> np.ndarray:
    """Length in mm of the contour between 2 x 2 pixels by code, `(16,)`."""
    rows, columns = sampling
    diagonal = 0.5 * float(np.hypot(rows, columns))
    half = [0, diagonal, diagonal, columns, diagonal, rows, 2 * diagonal, diagonal]
    return np.array([*half, *reversed(half)])
