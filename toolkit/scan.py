"""The first look at every case of a source: facts that settle the preprocessing and that the checks judge. Nothing is written."""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from attunet.errors import InputError
from attunet.geometry import orient, orientation_transform, oriented_spacing
from attunet.layouts import CaseFiles, label_values
from attunet.source_files import content_hash, joined_hash, read_image, read_labels

PERCENTILES = (0.5, 5.0, 25.0, 50.0, 75.0, 95.0, 99.5)
MAX_LABEL_VALUES = 1000  # beyond it the "mask" is an image
ORIENTATION = "LPS"


@dataclass(frozen=True)
class CaseFacts:
    """What one case's files hold, as plain numbers that go to JSON and back.

    oriented_shape, oriented_spacing: along the axes of `ORIENTATION` (the file's own where it has no spacing);
    half_extent: how far labels reach from the image centre along these axes, in `unit`, None without foreground;
    label_values: value -> voxels, None without a mask; grid_distance: between image and mask, in voxels; content_sha256: of the voxels.
    """

    case: str
    image_sha256: tuple[str, ...]
    label_sha256: str | None
    unit: str
    native_shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    spacing: tuple[float, float, float]
    oriented_shape: tuple[int, int, int]
    oriented_spacing: tuple[float, float, float]
    dtype: str
    intensity: tuple[dict[str, Any], ...]
    content_sha256: str
    label_values: dict[int, int] | None
    half_extent: tuple[float, float, float] | None
    grid_distance: float

    @property
    def num_channels(self) -> int:
        return len(self.intensity)

    @property
    def joined_image_sha256(self) -> str:
        return joined_hash(list(self.image_sha256))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def case_hashes(files: CaseFiles) -> tuple[tuple[str, ...], str | None]:
    """SHA-256 of every image file, and of the label file."""
    return tuple(content_hash(p) for p in files.images), None if files.label is None else content_hash(files.label)


def scan_case(files: CaseFiles) -> CaseFacts:
    """Read a case's files once. Raises InputError with the file for what cannot be read or does not fit together."""
    image_hashes, label_hash = case_hashes(files)
    volume = read_image(files.images)
    transform = orientation_transform(volume.affine, ORIENTATION if volume.unit == "mm" else None)
    values, extent, distance = None, None, 0.0
    spacing = oriented_spacing(volume.spacing, transform)
    if files.label is not None:
        labels, distance = read_labels(files.label, volume, files.images[0])
        values = label_values(labels)
        if len(values) > MAX_LABEL_VALUES:
            raise InputError(f"{files.label}: a mask has at most {MAX_LABEL_VALUES} values, got {len(values)}; is it an image?")
        extent = _half_extent(orient(labels != 0, transform), spacing)
    oriented = np.ascontiguousarray(orient(volume.data, transform))
    return CaseFacts(
        case=files.case,
        image_sha256=image_hashes,
        label_sha256=label_hash,
        unit=volume.unit,
        native_shape=volume.shape,
        affine=tuple(tuple(row) for row in volume.affine.tolist()),
        spacing=volume.spacing,
        oriented_shape=(oriented.shape[1], oriented.shape[2], oriented.shape[3]),
        oriented_spacing=spacing,
        dtype=volume.data.dtype.name,
        intensity=tuple(_intensity(channel) for channel in oriented),
        content_sha256=_voxel_hash(oriented),
        label_values=values,
        half_extent=extent,
        grid_distance=distance,
    )


def _half_extent(foreground: np.ndarray, spacing: tuple[float, float, float]) -> tuple[float, float, float] | None:
    """Per axis, how far the outer edge of the foreground is from the image centre."""
    reach = []
    for axis in range(3):
        hits = np.flatnonzero(foreground.any(axis=tuple(a for a in range(3) if a != axis)))
        if len(hits) == 0:
            return None
        centre = foreground.shape[axis] / 2
        reach.append(float(max(centre - hits[0], hits[-1] + 1 - centre)) * spacing[axis])
    return reach[0], reach[1], reach[2]


def _intensity(channel: np.ndarray) -> dict[str, Any]:
    percentiles = np.percentile(channel, PERCENTILES)
    return {
        "min": float(channel.min()),
        "max": float(channel.max()),
        "mean": float(channel.mean(dtype=np.float64)),
        "std": float(channel.std(dtype=np.float64)),
        "percentiles": {f"{p:g}": float(v) for p, v in zip(PERCENTILES, percentiles, strict=True)},
    }


def _voxel_hash(oriented: np.ndarray) -> str:
    """The same for the same voxels, however they are compressed, typed or oriented in their file."""
    digest = hashlib.sha256(repr(oriented.shape).encode())
    for channel in oriented:
        digest.update(np.ascontiguousarray(channel, dtype=np.float32).data)
    return digest.hexdigest()
