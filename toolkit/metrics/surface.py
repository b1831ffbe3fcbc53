"""Distances between the surfaces of two masks, in mm."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from attunet.errors import InputError


@dataclass(frozen=True)
class SurfaceDistances:
    """Figures of the distances from every surface voxel of one mask to the nearest surface voxel of the other, in mm.

    A surface voxel belongs to the mask and has one of its 6 neighbours inside the image and outside the mask. The edge
    of the image is no surface, as in the evaluation of the CHAOS challenge: an organ that the image cuts has its
    surface elsewhere. Only a mask that fills the image, and has no surface voxel then, is given the image's edge.

    Args:
        hd95: 95th-percentile Hausdorff distance: the larger directed 95th percentile, interpolated linearly.
        assd: average symmetric surface distance: the mean over the voxels of both surfaces together.
        mssd: maximum symmetric surface distance, which is the Hausdorff distance.
    """

    hd95: float
    assd: float
    mssd: float


def surface_distances(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> SurfaceDistances:
    """Distances between the surfaces of two masks of one shape, 2D or 3D; the spacing along their axes is in mm.

    They are the diagonal of the image where one mask is empty, NaN where both are. An axis of length 1 is left out: an
    image stored as a volume of one slice is measured as an image. Raises InputError where masks and spacing do not fit
    together.
    """
    prediction, truth, sampling = check_masks(prediction, truth, spacing)
    if not (prediction.any() and truth.any()):
        diagonal = float(np.linalg.norm([n * s for n, s in zip(truth.shape, sampling, strict=True)]))
        missing = diagonal if prediction.any() or truth.any() else float("nan")
        return SurfaceDistances(missing, missing, missing)
    box = _box_with_margin(prediction | truth)
    of_prediction, of_truth = _surface(prediction[box]), _surface(truth[box])
    to_truth = ndimage.distance_transform_edt(~of_truth, sampling=sampling)[of_prediction]
    to_prediction = ndimage.distance_transform_edt(~of_prediction, sampling=sampling)[of_truth]
    both = np.concatenate([to_truth, to_prediction])
    hd95 = max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95))
    return SurfaceDistances(float(hd95), float(both.mean()), float(both.max()))


def check_masks(
    prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """The masks as booleans without axes of length 1 (but for one, where all are), and the spacing of the other axes.

    Raises InputError for two shapes, or a spacing that is not finite and above 0.
    """
    prediction, truth = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    if prediction.shape != truth.shape or len(spacing) != truth.ndim:
        raise InputError(
            f"masks and spacing must have one shape, got {prediction.shape}, {truth.shape} and {len(spacing)} spacings"
        )
    if not all(0 < s < np.inf for s in spacing):
        raise InputError(f"spacing: every voxel size must be finite and above 0 mm, got {tuple(map(float, spacing))}")
    kept = [axis for axis, length in enumerate(truth.shape) if length > 1] or [0]
    others = tuple(axis for axis in range(truth.ndim) if axis not in kept)
    return prediction.squeeze(others), truth.squeeze(others), [float(spacing[axis]) for axis in kept]


def _surface(mask: np.ndarray) -> np.ndarray:
    # Scipy's default structure is the cross of 6 neighbours
    inner = mask & ~ndimage.binary_erosion(mask, border_value=1)
    return inner if inner.any() else mask & ~ndimage.binary_erosion(mask)


def _box_with_margin(mask: np.ndarray) -> tuple[slice, ...]:
    """The box around a mask, one voxel wider on each side, so that only the image's edge is an edge of the box."""
    (box,) = ndimage.find_objects(mask.view(np.uint8))
    return tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
