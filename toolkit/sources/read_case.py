"""A case's files as they lie in the source: their hashes, and what they hold."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attunet.errors import InputError
from attunet.io.dicom import SliceNames
from attunet.io.images import IMAGE_SUFFIXES
from attunet.io.nifti import one_line
from attunet.io.readers import read_label_array, read_volume
from attunet.sources.case_files import files_in
from attunet.system.atomic_files import sha256
from attunet.volumes.geometry import orient, orientation_transform
from attunet.volumes.volume import Volume

SAME_GRID = 0.05  # of a voxel, at the corner where two grids differ most


def content_hash(path: Path) -> str:
    """SHA-256 of a file; of a folder, over the names and hashes of the files directly in it."""
    try:
        if path.is_dir():
            lines = "".join(f"{p.name} {sha256(p)}\n" for p in files_in(path))
            return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()
        return sha256(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from None


def joined_hash(hashes: Sequence[str]) -> str:
    """One hash for an image in several files: that of the file where it is only one."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def read_image(paths: Sequence[Path], *, frames: bool = False) -> Volume:
    """A case's image; several files on one grid become its channels, in the order given, and so do a file's frames where asked for."""
    volumes = [read_volume(path, channels=None if frames else 1) for path in paths]
    first = volumes[0]
    for path, volume in zip(paths[1:], volumes[1:], strict=True):
        if volume.shape != first.shape or grid_distance(first, volume.affine) > SAME_GRID:
            raise InputError(f"{path}: channels of one case must share a grid, got {volume.shape} beside {first.shape} in {paths[0].name}")
    if len(volumes) == 1:
        return first
    return Volume(np.concatenate([v.data for v in volumes]), first.affine, first.unit, first.header)


def read_labels(paths: Sequence[Path], image: Volume, image_path: Path) -> tuple[np.ndarray, float]:
    """A label map `(X, Y, Z)` of the files' own values, and how far its grid is from the image's, in voxels.

    Several masks, one per object, are one label map; where they overlap, the larger value counts.
    """
    labels, distance = _read_mask(paths[0], image, image_path)
    for path in paths[1:]:
        further, apart = _read_mask(path, image, image_path)
        labels, distance = np.maximum(labels, further), max(distance, apart)
    return labels, distance


def _read_mask(path: Path, image: Volume, image_path: Path) -> tuple[np.ndarray, float]:
    """One mask file, or the masks of a DICOM series' slices.

    A mask of the same grid stored along other axes is brought to the image's; a folder holds a mask per DICOM slice, matched by the
    order of names. Raises InputError where the shapes differ.
    """
    if path.is_dir():
        return _read_slice_masks(path, image, image_path), 0.0
    labels, affine = read_label_array(path)
    if image.unit == "mm" and not (labels.shape == image.shape and grid_distance(image, affine) <= SAME_GRID):
        turned, turned_affine = _along(image.affine, labels, affine)
        if turned.shape == image.shape and grid_distance(image, turned_affine) <= SAME_GRID:
            return turned, 0.0
    if labels.shape != image.shape:
        raise InputError(f"{path}: the mask must have the image's shape {image.shape} ({image_path.name}), got {labels.shape}")
    return labels, grid_distance(image, affine) if image.unit == "mm" else 0.0


def grid_distance(volume: Volume, affine: np.ndarray) -> float:
    """The largest distance between the volume's corners and the same corners by another affine, in voxels of its finest axis."""
    corners = np.stack(np.meshgrid(*((0, n - 1) for n in volume.shape), [1], indexing="ij"), axis=-1).reshape(-1, 4)
    distances = np.linalg.norm((corners @ (volume.affine - affine).T)[:, :3], axis=1)
    return float(distances.max() / min(volume.spacing))


def _along(target: np.ndarray, array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The array with its axes permuted and flipped to the nearest directions of another affine, and its affine then."""
    import nibabel as nib

    codes = "".join(nib.aff2axcodes(target))
    transform = orientation_transform(affine, codes)
    return orient(array, transform), affine @ nib.orientations.inv_ornt_aff(np.array(transform), array.shape)


def _read_slice_masks(folder: Path, image: Volume, image_path: Path) -> np.ndarray:
    """One mask image per slice of a DICOM series: the n-th by name belongs to the n-th slice file by name."""
    masks = [p for p in files_in(folder) if p.name.lower().endswith(IMAGE_SUFFIXES)]
    names = image.header.names if isinstance(image.header, SliceNames) else ()
    if len(masks) != len(names):
        raise InputError(f"{folder}: must have a mask per slice of {image_path.name}, got {len(masks)} for {len(names)}")
    by_name = dict(zip(sorted(names), masks, strict=True))
    labels = np.zeros(image.shape, dtype=np.int32)
    for index, name in enumerate(names):
        mask, _ = read_label_array(by_name[name])
        if mask.shape != (*image.shape[:2], 1):
            raise InputError(f"{by_name[name]}: the mask must have the slice's {image.shape[:2]} pixels, got {mask.shape[:2]}")
        labels[:, :, index] = mask[:, :, 0]
    return labels
