"""Slices in radiological orientation: the patient's right on the left of the picture, front or head at the top."""

from dataclasses import dataclass

import numpy as np

from attunet.volumes.geometry import Transform, orientation_transform, oriented_spacing, to_slices
from attunet.volumes.volume import Volume

SIDES = {0: ("A", "P", "S", "I"), 1: ("R", "L", "S", "I"), 2: ("R", "L", "A", "P")}  # left, right, top, bottom


@dataclass(frozen=True)
class View:
    """Orientation and proportions in which slices of one volume are shown: the height of a pixel over its width, and
    letters for left, right, top and bottom, none for images without an orientation.
    """

    transform: Transform
    slice_axis: int
    row_over_column: float
    sides: tuple[str, ...]

    def slices(self, array: np.ndarray) -> np.ndarray:
        """An array (X, Y, Z) on the volume's grid as slices (n, rows, columns), row 0 at the top."""
        slices = to_slices(array, self.transform, self.slice_axis)
        return slices[:, ::-1] if self.sides and self.slice_axis != 2 else slices


def view_of(volume: Volume, *, slice_axis: int = 2, oriented: bool = True) -> View:
    """The view of a volume.

    slice_axis: 0 sagittal, 1 coronal, 2 axial; for `oriented=False` (images without an affine) the array's own axis.
    """
    transform = orientation_transform(volume.affine, "LPS" if oriented else None)
    spacing = oriented_spacing(volume.spacing, transform)
    columns, rows = (axis for axis in range(3) if axis != slice_axis)
    return View(transform, slice_axis, spacing[rows] / spacing[columns], SIDES[slice_axis] if oriented else ())


def largest_slice(mask: np.ndarray) -> int | None:
    """Index of the slice (n, rows, columns) with the most pixels set; None for an empty mask."""
    sizes = mask.reshape(len(mask), -1).sum(axis=1)
    return int(sizes.argmax()) if sizes.any() else None


def fullest_slice(labels: np.ndarray) -> int:
    """Index of the slice (n, rows, columns) with the most classes and, among those, the most foreground."""
    sizes = [(len(np.unique(one)), int((one > 0).sum())) for one in labels]
    return max(range(len(sizes)), key=lambda index: sizes[index])
