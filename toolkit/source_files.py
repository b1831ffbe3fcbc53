"""A case's files as they lie in the source: their hashes, and what they hold."""

import hashlib
from pathlib import Path

import numpy as np

from attunet.errors import InputError
from attunet.readers import read_label_array, read_volume
from attunet.volume import Volume

GRID_TOLERANCE = 0.05  # of a voxel, at the corner where two grids differ most


def content_hash(path: Path) -> str:
    """SHA-256 of a file; of a folder, over the names and hashes of the files directly in it."""
    if path.is_dir():
        lines = [f"{p.name} {content_hash(p)}\n" for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith(".")]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def joined_hash(hashes: list[str]) -> str:
    """One hash for an image in several files: that of the file where it is only one."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def read_image(paths: tuple[Path, ...]) -> Volume:
    """A case's image; several files on one grid become its channels, in the order given."""
    volumes = [read_volume(path) for path in paths]
    first = volumes[0]
    for path, volume in zip(paths[1:], volumes[1:], strict=True):
        if volume.shape != first.shape or grid_distance(first, volume.affine) > GRID_TOLERANCE:
            raise InputError(f"{path}: channels of one case must share a grid, got {volume.shape} beside {first.shape} in {paths[0].name}")
    if len(volumes) == 1:
        return first
    return Volume(np.concatenate([v.data for v in volumes]), first.affine, first.unit, first.header)


def read_labels(path: Path, image: Volume, image_path: Path) -> tuple[np.ndarray, float]:
    """A label map `(X, Y, Z)` of the file's own values, and how far its grid is from the image's, in voxels."""
    labels, affine = read_label_array(path)
    if labels.shape != image.shape:
        raise InputError(f"{path}: the mask must have the image's shape {image.shape} ({image_path.name}), got {labels.shape}")
    return labels, grid_distance(image, affine)


def grid_distance(volume: Volume, affine: np.ndarray) -> float:
    """The largest distance between the volume's corners and the same corners by another affine, in voxels of its finest axis."""
    corners = np.stack(np.meshgrid(*((0, n - 1) for n in volume.shape), [1], indexing="ij"), axis=-1).reshape(-1, 4)
    distances = np.linalg.norm((corners @ (volume.affine - affine).T)[:, :3], axis=1)
    return float(distances.max() / min(volume.spacing))
