"""Reading of a case's files: hashes, image and mask."""

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from attunet.decisions import Choices, Decision, choice
from attunet.errors import InputError, one_line
from attunet.io.dicom.file import is_dicom
from attunet.io.dicom.series import SliceNames
from attunet.io.pictures.annotations import ANNOTATION_SUFFIXES, read_annotations
from attunet.io.pictures.images import IMAGE_SUFFIXES, is_jpeg, require_black_and_white
from attunet.io.readers import NOTHING, read_mask, read_volume
from attunet.sources.case_files import files_in
from attunet.sources.grey_levels import snap
from attunet.system.atomic_files import sha256
from attunet.volumes.geometry import orient, orientation_transform
from attunet.volumes.volume import Volume

MAX_OBJECT_OVERLAP = 0.5  # fraction of an object's voxels that may belong to other objects of its class
SAME_GRID = 0.05  # voxels by which the corners of two equal grids may differ


@dataclass(frozen=True, eq=False)
class Mask:
    """A case's label map.

    Args:
        values: label values `(X, Y, Z)` as in the files.
        grid_distance: distance between the grids of mask and image, in voxels.
        palette: `{code: index}` for a mask with a palette.
        decisions: interpretations that may differ from the user's.
    """

    values: np.ndarray
    grid_distance: float = 0.0
    palette: dict[int, int] = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True)
class MaskOptions:
    """Options of reading the masks of a source.

    Args:
        values: label value of each mask file's foreground; empty if the values in the files are used.
        levels: the greys that are classes in masks with smoothed edges; empty if no edges are smoothed.
        choices: the user's interpretations, by rule.
    """

    values: tuple[int, ...] = ()
    levels: tuple[int, ...] = ()
    choices: Choices = field(default_factory=dict)


OWN_VALUES = MaskOptions()


def content_hash(path: Path) -> str:
    """Compute the SHA-256 of a file, or of the names and hashes of the files directly in a folder."""
    try:
        if path.is_dir():
            lines = "".join(f"{p.name} {sha256(p)}\n" for p in files_in(path))
            return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()
        return sha256(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from None


def joined_hash(hashes: Sequence[str]) -> str:
    """Join the hashes of an image's files to one; the hash of a single file is returned as it is."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def read_image(paths: Sequence[Path], *, choices: Choices = NOTHING) -> Volume:
    """Read a case's image; several files on one grid become its channels, in the given order.

    Raises:
        InputError: as `read_volume` does, or the grids of the files differ.
    """
    volumes = [read_volume(path, channels=None, choices=choices) for path in paths]
    first = volumes[0]
    for path, volume in zip(paths[1:], volumes[1:], strict=True):
        if volume.shape != first.shape or grid_distance(first, volume.affine) > SAME_GRID:
            raise InputError(
                f"{path}: channels of one case must share a grid, got {volume.shape} beside {first.shape} in "
                f"{paths[0].name}; choose the files with --images NAME,..."
            )
    if len(volumes) == 1:
        return first
    decisions = dict.fromkeys(decision for volume in volumes for decision in volume.decisions)
    return replace(first, data=np.concatenate([v.data for v in volumes]), decisions=tuple(decisions))


def read_labels(paths: Sequence[Path], image: Volume, image_path: Path, options: MaskOptions = OWN_VALUES) -> Mask:
    """Read a case's mask or masks on the image's grid.

    Several masks without `options.values` are objects of one mask; where objects overlap, the larger value is used.
    Masks with `options.values` are classes, which must not overlap unless the user chose an order.

    Args:
        paths: the mask files.
        image: the case's image.
        image_path: first file of the image, for messages.
        options: see `MaskOptions`.

    Returns:
        One label map of all files.

    Raises:
        InputError: a file cannot be read, its shape is not the image's, or classes overlap.
    """
    decisions: dict[Decision, None] = {}
    distances: list[float] = []
    palette: dict[int, int] = {}

    def masks() -> Iterator[np.ndarray]:
        """Read one mask at a time, because a scan may have a hundred."""
        for path in paths:
            mask = _read_mask(path, image, image_path, options.choices)
            decisions.update(dict.fromkeys(mask.decisions))
            distances.append(mask.grid_distance)
            palette.update(mask.palette if len(paths) == 1 else {})
            yield snap(mask.values, options.levels) if options.levels else mask.values

    if options.values:
        values, decision = _join_classes(paths, masks(), image.shape, options)
        decisions.update(dict.fromkeys(decision))
    else:
        values = _join_objects(paths, masks(), options)
    return Mask(values, max(distances), palette, tuple(decisions))


def _join_classes(
    paths: Sequence[Path], masks: Iterator[np.ndarray], shape: tuple[int, int, int], options: MaskOptions
) -> tuple[np.ndarray, list[Decision]]:
    """Join one mask per class to a label map."""
    labels = np.zeros(shape, dtype=np.min_scalar_type(max(options.values)))
    order, overlapping, smoothed = choice("overlapping-classes", options.choices), 0, False
    for path, mask, value in zip(paths, masks, options.values, strict=True):
        if is_jpeg(path):
            require_black_and_white(path, mask)
        inside, is_smoothed = _foreground(mask)
        smoothed |= is_smoothed
        _check_observers(path, inside & (labels == value), inside, order)
        both = inside & (labels != 0) & (labels != value)
        overlapping += int(both.sum())
        if overlapping and order == "refuse":
            raise InputError(
                f"{path}: this class overlaps another in {overlapping:,} voxels; choose which counts with --read "
                "overlapping-classes=first or last, or masks with --masks NAME,..."
            )
        labels[inside & ~both if order == "first" else inside] = value
    decisions = []
    if smoothed:
        decisions.append(Decision("mask-greys", "masks of one class have smoothed edges: from 128 on they count"))
    if overlapping:
        decisions.append(
            Decision("overlapping-classes", f"where classes overlap, the {order} in the order of names counts")
        )
    return labels, decisions


def _join_objects(paths: Sequence[Path], masks: Iterator[np.ndarray], options: MaskOptions) -> np.ndarray:
    """Join one mask per object to a label map; where objects overlap, the larger value is used."""
    labels, order = next(masks), choice("overlapping-classes", options.choices)
    for path, mask in zip(paths[1:], masks, strict=True):
        _check_observers(path, (mask != 0) & (labels != 0), mask != 0, order)
        labels = np.maximum(labels, mask)
    return labels


def _check_observers(path: Path, both: np.ndarray, inside: np.ndarray, order: str) -> None:
    """Refuse a mask that mostly overlaps others of its class: masks of several observers overlap, objects do not."""
    if order == "refuse" and both.sum() > MAX_OBJECT_OVERLAP * inside.sum():
        raise InputError(
            f"{path}: {int(both.sum()):,} of its {int(inside.sum()):,} voxels lie on other masks of its class, so "
            "these are no objects: are they of several observers? Choose one with --masks NAME, or join them with "
            "--read overlapping-classes=last"
        )


def _foreground(mask: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the pixels of a class in a mask of its own, and True if its edges are smoothed greys from 0 to 255."""
    is_smoothed = mask.max() == 255 and bool(((mask > 0) & (mask < 255)).any())
    return (mask >= 128 if is_smoothed else mask != 0), is_smoothed


def _read_mask(path: Path, image: Volume, image_path: Path, choices: Choices) -> Mask:
    """Read one mask file, or a folder with a mask for each slice of a DICOM series.

    A mask on the same grid that is stored along other axes is brought to the axes of the image.

    Raises:
        InputError: the shapes differ.
    """
    if path.is_dir():
        return Mask(_read_slice_masks(path, image, image_path))
    if path.name.lower().endswith(ANNOTATION_SUFFIXES):
        return Mask(read_annotations(path, image_path, image.shape))
    mask = read_mask(path, choices=choices)
    labels, palette = mask.data[0], mask.header if isinstance(mask.header, dict) else {}
    if image.unit == "mm" and labels.shape == image.shape and image.is_oriented != mask.is_oriented:
        which = "mask" if image.is_oriented else "image"
        reading = Decision(
            "mask-geometry", f"the {which} states no orientation: image and mask belong together voxel by voxel"
        )
        return Mask(labels, palette=palette, decisions=(*mask.decisions, reading))
    if image.unit == "mm" and not (labels.shape == image.shape and grid_distance(image, mask.affine) <= SAME_GRID):
        turned, turned_affine = _along(image.affine, labels, mask.affine)
        if turned.shape == image.shape and grid_distance(image, turned_affine) <= SAME_GRID:
            return Mask(turned, decisions=mask.decisions)
    if labels.shape != image.shape:
        shapes = f"{image.shape} ({image_path.name}), got {labels.shape}"
        raise InputError(f"{path}: the mask must have the image's shape {shapes}: resample it to the image's grid")
    return Mask(labels, grid_distance(image, mask.affine) if image.unit == "mm" else 0.0, palette, mask.decisions)


def grid_distance(volume: Volume, affine: np.ndarray) -> float:
    """Return the largest distance between the volume's corners under two affines, in voxels of its finest axis."""
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
    """Read one mask image for each slice of a DICOM series, paired by `pair_by_number`."""
    masks = {p.name: p for p in files_in(folder) if p.name.lower().endswith(IMAGE_SUFFIXES)}
    names = image.header.names if isinstance(image.header, SliceNames) else ()
    if not masks and any(is_dicom(path) for path in files_in(folder)):
        raise InputError(f"{folder}: holds DICOM, which is not read as a mask: save the segmentation as NIfTI")
    if len(masks) != len(names):
        raise InputError(
            f"{folder}: must have a mask for each slice of {image_path.name}, got {len(masks)} for {len(names)}"
        )
    pairs = pair_by_number(names, list(masks))
    if pairs is None:
        raise InputError(
            f"{folder}: the numbers in the names of masks and slices differ, and their orders too; name them alike"
        )
    labels = np.zeros(image.shape, dtype=np.int32)
    for index, name in enumerate(names):
        path = masks[pairs[name]]
        mask = read_mask(path)
        if is_jpeg(path):
            require_black_and_white(path, mask.data)
        if mask.shape != (*image.shape[:2], 1):
            raise InputError(f"{path}: the mask must have the slice's {image.shape[:2]} pixels, got {mask.shape[:2]}")
        labels[:, :, index] = mask.data[0, :, :, 0]
    return labels


def pair_by_number(images: Sequence[str], masks: Sequence[str]) -> dict[str, str] | None:
    """Pair the names of images and masks in two lists of equal length.

    Names are paired by a number in them if both lists have the same numbers; else by their order if it is that of the
    numbers.

    Returns:
        Image name -> mask name; None if neither rule applies (as for `1, 10, 2` and `003, 004, 005`), or if two numbers
        in the names give different pairs.
    """
    image_numbers, mask_numbers = _numbers(images), _numbers(masks)
    readings: list[dict[str, str]] = []
    for image_number, mask_number in itertools.product(image_numbers, mask_numbers):
        by_number = {number: name for name, number in mask_number.items()}
        if by_number.keys() == set(image_number.values()):
            readings.append({name: by_number[number] for name, number in image_number.items()})
    if readings:
        return readings[0] if all(reading == readings[0] for reading in readings) else None
    for numbers in (*image_numbers[:1], *mask_numbers[:1]):
        if sorted(numbers) != sorted(numbers, key=lambda name: numbers[name]):
            return None
    return dict(zip(sorted(images), sorted(masks), strict=True))


def _numbers(names: Sequence[str]) -> list[dict[str, int]]:
    """Return the numbers in which the names differ, the last one first."""
    rows = [[int(digits[-18:]) for digits in re.findall(r"[0-9]+", name)] for name in names]
    columns = ([row[column] for row in rows] for column in reversed(range(min(map(len, rows), default=0))))
    return [dict(zip(names, numbers, strict=True)) for numbers in columns if len(set(numbers)) == len(numbers)]
