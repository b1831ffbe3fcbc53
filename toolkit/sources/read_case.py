"""Reading of a case's files: image and mask."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from attunet.decisions import Choices, Decision, choice
from attunet.errors import InputError
from attunet.io.dicom.file import is_dicom
from attunet.io.dicom.series import SliceNames
from attunet.io.pictures.annotations import ANNOTATION_SUFFIXES, read_annotations
from attunet.io.pictures.images import IMAGE_SUFFIXES, is_jpeg, require_black_and_white
from attunet.io.readers import NOTHING, read_mask, read_volume
from attunet.sources.case_files import files_in
from attunet.sources.labels.codings import to_indices
from attunet.sources.labels.grey_levels import snap
from attunet.sources.layouts.numbers import pair_by_number
from attunet.volumes.geometry import orient, orientation_transform
from attunet.volumes.volume import Volume

MAX_OBJECT_OVERLAP = 0.5  # fraction of an object's voxels that may belong to other objects of its class
SAME_GRID = 0.05  # voxels by which the corners of two equal grids may differ


@dataclass(frozen=True, eq=False)
class Mask:
    """A case's label map."""

    values: np.ndarray  # label values `(X, Y, Z)` as in the files
    grid_distance: float = 0.0  # distance between the grids of mask and image, in voxels
    palette: dict[int, int] = field(default_factory=dict)  # `{code: index}` for a mask with a palette
    decisions: tuple[Decision, ...] = ()  # interpretations that may differ from the user's


@dataclass(frozen=True)
class MaskOptions:
    """Options of reading the masks of a source."""

    # Label value of each mask file's foreground; empty if the values in the files are used
    values: tuple[int, ...] = ()
    # The greys that are classes in masks with smoothed edges; empty if no edges are smoothed
    levels: tuple[int, ...] = ()
    choices: Choices = field(default_factory=dict)


def read_image(paths: Sequence[Path], *, choices: Choices = NOTHING) -> Volume:
    """Read a case's image; several files on one grid become its channels, in the given order. Raises InputError as
    `read_volume` does, and where the grids of the files differ.
    """
    first, *others = volumes = [read_volume(path, channels=None, choices=choices) for path in paths]
    for path, volume in zip(paths[1:], others, strict=True):
        if volume.shape != first.shape or first.distance(volume.affine) > SAME_GRID:
            raise InputError(
                f"{path}: channels of one case must share a grid, got {volume.shape} beside {first.shape} in "
                f"{paths[0].name}; choose the files with --images NAME,..."
            )
    if not others:
        return first
    decisions = dict.fromkeys(decision for volume in volumes for decision in volume.decisions)
    return replace(first, data=np.concatenate([v.data for v in volumes]), decisions=tuple(decisions))


def read_case(
    images: Sequence[Path], masks: Sequence[Path], mapping: Mapping[int, int] | None, options: MaskOptions
) -> tuple[Volume, np.ndarray | None]:
    """Read a case's image, and its masks as class indices uint8 `(X, Y, Z)`.

    `mapping` has the class index of each label value; None for a case without classes, whose masks are not read. Raises
    InputError as `read_image`, `read_labels` and `to_indices` do.
    """
    volume = read_image(images, choices=options.choices)
    if not masks or mapping is None:
        return volume, None
    return volume, to_indices(read_labels(masks, volume, images[0], options).values, mapping, masks[0])


def read_labels(paths: Sequence[Path], image: Volume, image_path: Path, options: MaskOptions) -> Mask:
    """Read a case's mask or masks on the image's grid; messages name the image's first file, `image_path`.

    Several masks without `options.values` are objects of one mask; where objects overlap, the larger value is used.
    Masks with `options.values` are classes, which must not overlap unless the user chose an order. Raises InputError if
    a file cannot be read, its shape is not the image's, or classes overlap.
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

    order = choice("overlapping-classes", options.choices)
    if options.values:
        values, decision = _join_classes(paths, masks(), image.shape, options.values, order)
        decisions.update(dict.fromkeys(decision))
    else:
        values = _join_objects(paths, masks(), order)
    return Mask(values, max(distances), palette, tuple(decisions))


def _join_classes(
    paths: Sequence[Path], masks: Iterator[np.ndarray], shape: tuple[int, int, int], values: Sequence[int], order: str
) -> tuple[np.ndarray, list[Decision]]:
    """Join one mask per class to a label map."""
    labels = np.zeros(shape, dtype=np.min_scalar_type(max(values)))
    overlapping, smoothed = 0, False
    for path, mask, value in zip(paths, masks, values, strict=True):
        if is_jpeg(path):
            require_black_and_white(path, mask)
        has_greys = mask.max() == 255 and bool(((mask > 0) & (mask < 255)).any())
        smoothed |= has_greys
        inside = mask >= 128 if has_greys else mask != 0
        _check_observers(path, inside & (labels == value), inside, order)
        both = inside & (labels != 0) & (labels != value)
        overlapping += int(both.sum())
        if overlapping and order == "refuse":
            raise InputError(
                f"{path}: this class overlaps another in {overlapping:,} voxels; choose which counts with "
                "--read overlapping-classes=first or last, or masks with --masks NAME,..."
            )
        labels[inside & ~both if order == "first" else inside] = value
    decisions = []
    if smoothed:
        decisions.append(Decision("mask-greys", "masks of one class have smoothed edges: from 128 on they count"))
    if overlapping:
        text = f"where classes overlap, the {order} in the order of names counts"
        decisions.append(Decision("overlapping-classes", text))
    return labels, decisions


def _join_objects(paths: Sequence[Path], masks: Iterator[np.ndarray], order: str) -> np.ndarray:
    """Join one mask per object to a label map; where objects overlap, the larger value is used."""
    labels = next(masks)
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


def _read_mask(path: Path, image: Volume, image_path: Path, choices: Choices) -> Mask:
    """Read one mask file, or a folder with a mask for each slice of a DICOM series.

    A mask on the same grid that is stored along other axes is brought to the axes of the image. Raises InputError if
    the shapes differ.
    """
    if path.is_dir():
        return _read_slice_masks(path, image, image_path, choices)
    if path.name.lower().endswith(ANNOTATION_SUFFIXES):
        return Mask(read_annotations(path, image_path, image.shape))
    mask = read_mask(path, choices=choices)
    labels, palette = mask.data[0], mask.header if isinstance(mask.header, dict) else {}
    decisions, distance, same_shape = mask.decisions, 0.0, labels.shape == image.shape
    if image.unit == "mm" and same_shape and image.is_oriented != mask.is_oriented:
        which = "mask" if image.is_oriented else "image"
        text = f"the {which} states no orientation: image and mask belong together voxel by voxel"
        return Mask(labels, palette=palette, decisions=(*decisions, Decision("mask-geometry", text)))
    if image.unit == "mm":
        distance = image.distance(mask.affine)
        if not same_shape or distance > SAME_GRID:
            turned, affine = _along(image.affine, labels, mask.affine)
            if turned.shape == image.shape and image.distance(affine) <= SAME_GRID:
                return Mask(turned, decisions=decisions)
    if not same_shape:
        shapes = f"{image.shape} ({image_path.name}), got {labels.shape}"
        raise InputError(f"{path}: the mask must have the image's shape {shapes}: resample it to the image's grid")
    if image.unit != mask.unit:
        text = "image or mask is a picture without a place in space: they belong together voxel by voxel"
        decisions = (*decisions, Decision("mask-geometry", text))
    return Mask(labels, distance, palette, decisions)


def _along(target: np.ndarray, array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The array with its axes permuted and flipped to the nearest directions of another affine, and its affine then."""
    transform = orientation_transform(affine, "".join(nib.aff2axcodes(target)))
    return orient(array, transform), affine @ nib.orientations.inv_ornt_aff(np.array(transform), array.shape)


def _read_slice_masks(folder: Path, image: Volume, image_path: Path, choices: Choices) -> Mask:
    """Read one mask image for each slice of a DICOM series, paired by `pair_by_number`."""
    masks = {p.name: p for p in files_in(folder) if p.name.lower().endswith(IMAGE_SUFFIXES)}
    names = image.header.names if isinstance(image.header, SliceNames) else ()
    if not masks and any(map(is_dicom, files_in(folder))):
        raise InputError(f"{folder}: holds DICOM, which is not read as a mask: save the segmentation as NIfTI")
    if len(masks) != len(names):
        raise InputError(
            f"{folder}: must have a mask for each slice of {image_path.name}, got {len(masks)} for {len(names)}"
        )
    pairs = pair_by_number(names, list(masks))
    if pairs is None:
        raise InputError(
            f"{folder}: names of masks and slices have other numbers, and their order tells no pairs; name them alike"
        )
    labels = np.zeros(image.shape, dtype=np.int32)
    decisions: dict[Decision, None] = {}
    for index, name in enumerate(names):
        path = masks[pairs[name]]
        mask = read_mask(path, choices=choices)
        decisions |= dict.fromkeys(mask.decisions)
        if is_jpeg(path):
            require_black_and_white(path, mask.data)
        if mask.shape != (*image.shape[:2], 1):
            raise InputError(f"{path}: the mask must have the slice's {image.shape[:2]} pixels, got {mask.shape[:2]}")
        labels[:, :, index] = mask.data[0, :, :, 0]
    return Mask(labels, decisions=tuple(decisions))
