"""Distances between the surfaces of two masks, in mm."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from attunet.errors import InputError


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """From every surface voxel of one mask to the nearest surface voxel of the other, float64 (n,) in mm.

    A surface voxel belongs to the mask and has one of its 6 neighbours outside; outside the image counts as outside.
    Where one mask is empty nothing is near: the arrays are empty and `missing_mm` is the diagonal of the image.
    Where both are, `missing_mm` is NaN. Otherwise it is None.
    """

    prediction_to_truth: np.ndarray
    truth_to_prediction: np.ndarray
    missing_mm: float | None = None

    @property
    def hd95(self) -> float:
        """The larger of the two directed 95th percentiles (interpolated linearly), which is also MONAI's definition."""
        if self.missing_mm is not None:
            return self.missing_mm
        return float(max(np.percentile(self.prediction_to_truth, 95), np.percentile(self.truth_to_prediction, 95)))

    @property
    def assd(self) -> float:
        if self.missing_mm is not None:
            return self.missing_mm
        return float(self._both.mean())

    @property
    def mssd(self) -> float:
        if self.missing_mm is not None:
            return self.missing_mm
        return float(self._both.max())

    def surface_dice(self, tolerance_mm: float) -> float:
        """Share of the voxels of both surfaces that lie at most `tolerance_mm` from the other surface."""
        if self.missing_mm is not None:
            return float("nan") if np.isnan(self.missing_mm) else 0.0
        return float(np.mean(self._both <= tolerance_mm))

    @property
    def _both(self) -> np.ndarray:
        return np.concatenate([self.prediction_to_truth, self.truth_to_prediction])


def surface_distances(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> SurfaceDistances:
    """Distances between the surfaces of two masks of one shape, 2D or 3D; spacing: voxel size along their axes in mm.

    An axis of length 1 has no neighbours to look at: an image stored as a volume of one slice is measured as an image.
    Raises InputError for other shapes and for a spacing that is not finite and above 0.
    """
    prediction, truth = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    if prediction.shape != truth.shape or len(spacing) != truth.ndim:
        raise InputError(f"masks and spacing must have one shape, got {prediction.shape}, {truth.shape} and {len(spacing)} spacings")
    if not all(0 < s < np.inf for s in spacing):
        raise InputError(f"spacing: every voxel size must be finite and above 0 mm, got {tuple(map(float, spacing))}")
    wide = [n > 1 for n in truth.shape]
    sampling = [float(s) for s, w in zip(spacing, wide, strict=True) if w]
    prediction, truth = prediction.squeeze(), truth.squeeze()
    if not (prediction.any() and truth.any()):
        diagonal = float(np.linalg.norm([n * s for n, s in zip(truth.shape, sampling, strict=True)]))
        nothing = np.zeros(0)
        return SurfaceDistances(nothing, nothing, diagonal if prediction.any() or truth.any() else float("nan"))
    if truth.ndim == 0:  # an image of one voxel, set in both
        return SurfaceDistances(np.zeros(1), np.zeros(1))
    box = _bounding_box(prediction | truth)  # tight: outside it both masks are empty, so its border is outside as well
    of_prediction, of_truth = _surface(prediction[box]), _surface(truth[box])
    return SurfaceDistances(
        prediction_to_truth=ndimage.distance_transform_edt(~of_truth, sampling=sampling)[of_prediction],
        truth_to_prediction=ndimage.distance_transform_edt(~of_prediction, sampling=sampling)[of_truth],
    )


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)  # a cross of 6 neighbours, and a border value of 0, are scipy's defaults


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    assert box is not None
    return tuple(box)
