"""A scan in memory, as its file defines it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from attunet.decisions import Decision


@dataclass(frozen=True, eq=False)
class Volume:
    """One image volume on its native grid."""

    data: np.ndarray  # `(C, X, Y, Z)`, real numbers with the file's scaling applied; Z is 1 for a picture
    # `(4, 4)` float64, voxel index to mm in RAS+ as nibabel defines it; the identity for images without spacing
    affine: np.ndarray
    unit: Literal["mm", "pixel"] = "mm"  # of spacings; "pixel" means that the file has no physical spacing
    # Header from which a label map on this grid takes its codes, such as a nibabel header; None without one
    header: object = None
    # Interpretations of the file that another program may not share; `prepare`, `inspect` and `predict` print them
    decisions: tuple[Decision, ...] = ()
    is_oriented: bool = True  # False for a scan whose file states no orientation, so that left and right are a guess
    # SHA-256 of the patient's identifier in the file, to keep a patient's scans together; never written
    patient_hash: str | None = None

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along the array's three spatial axes, in `unit`."""
        x, y, z = (float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel, in `unit` to the third power; on a sheared grid less than the product of the spacings."""
        return abs(float(np.linalg.det(self.affine[:3, :3])))

    def distance(self, affine: np.ndarray) -> float:
        """Return the largest distance between the corners of the volume here and by another affine, in voxels of the
        finest axis.
        """
        corners = np.stack(np.meshgrid(*((0, n - 1) for n in self.shape), [1], indexing="ij"), axis=-1).reshape(-1, 4)
        distances = np.linalg.norm((corners @ (self.affine - affine).T)[:, :3], axis=1)
        return float(distances.max() / min(self.spacing))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Spatial shape `(X, Y, Z)`."""
        x, y, z = self.data.shape[1:]
        return x, y, z


def class_amounts(indices: np.ndarray, names: Sequence[str], volume: Volume) -> tuple[str, dict[str, float]]:
    """The amount of each foreground class in class indices `(X, Y, Z)`, by its name, and before it the unit: ml, or
    voxels without a physical size.
    """
    counts = np.bincount(indices.ravel(), minlength=len(names) + 1)[1:].tolist()
    if volume.unit != "mm":
        return "voxels", dict(zip(names, counts, strict=True))
    voxel_ml = volume.voxel_volume / 1000
    return "ml", {name: count * voxel_ml for name, count in zip(names, counts, strict=True)}


def amounts_in_words(amounts: Mapping[str, float], unit: str) -> str:
    """Amounts for a line of text: three digits below ten, so that what is there is never 0.

    Example:
        >>> amounts_in_words({"liver": 1512.34, "lesion": 0.0421}, "ml")
        'liver 1512 ml, lesion 0.0421 ml'
    """
    digits = {name: f"{amount:.0f}" if amount >= 10 else f"{amount:.3g}" for name, amount in amounts.items()}
    return ", ".join(f"{name} {text} {unit}" for name, text in digits.items())
