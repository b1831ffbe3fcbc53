"""The scan of a case: its files are read once, and facts are computed from the voxels. Nothing is written."""

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from attunet.decisions import Choices, choice
from attunet.errors import InputError
from attunet.io.readers import NOTHING
from attunet.preparation.case_facts import EROSIONS_MM, ORIENTATION, PERCENTILES, CaseFacts, ChannelIntensity
from attunet.sources.case_files import CaseFiles, content_hash, without_names
from attunet.sources.labels.codings import label_values
from attunet.sources.labels.grey_levels import region_sizes
from attunet.sources.read_case import MaskOptions, read_image, read_labels
from attunet.volumes.geometry import Transform, orient, orientation_transform, oriented_spacing
from attunet.volumes.postprocess import ONE_PART, eroded_shares, largest_shares
from attunet.volumes.volume import Volume

MANY_VALUES = 20  # a mask with more values may be an image
SCATTERED = 0.3  # minimum fraction of neighbours with equal values in a mask; noise has less
MAX_LABEL_VALUES = 1000  # a "mask" with more values is an image
MAX_INTENSITY = 1e30  # differences and sums of float32 beyond it are infinite


def case_hashes(files: CaseFiles) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Compute the SHA-256 of every image file, and of every label file."""
    return tuple(content_hash(p) for p in files.images), tuple(content_hash(p) for p in files.labels)


def scan_case(files: CaseFiles, *, choices: Choices = NOTHING) -> CaseFacts:
    """Read the files of a case once and compute its facts. Raises InputError if a file cannot be read or does not fit
    the others; the message names it.
    """
    with without_names(files.case, files.hidden):
        return _scan(files, choices)


def _scan(files: CaseFiles, choices: Choices) -> CaseFacts:
    hashes = case_hashes(files)
    volume = read_image(files.images, choices=choices)
    if (largest := max(abs(float(volume.data.min())), abs(float(volume.data.max())))) > MAX_INTENSITY:
        rule = f"voxels must lie within ±{MAX_INTENSITY:g}, got {largest:g}"
        raise InputError(f"{files.images[0]}: {rule}: give voxels without a value that of the background")
    transform = orientation_transform(volume.affine, ORIENTATION if volume.unit == "mm" else None)
    facts = _image_facts(files.case, hashes, volume, transform)
    if not files.labels:
        return facts
    mask = read_labels(files.labels, volume, files.images[0], MaskOptions(files.label_values, choices=choices))
    values = label_values(mask.values)
    _refuse_images(files.labels[0], mask.values, values, volume.unit, choices)
    regions = region_sizes(mask.values) if volume.unit == "pixel" and len(values) > 2 else values
    along_axes = orient(mask.values, transform)
    largest_parts, eroded_parts = _parts(mask.values, values, volume.spacing)
    return replace(
        facts,
        label_values=values,
        label_regions=regions if volume.unit == "pixel" else {},
        label_centres=_centres(along_axes, values, facts.oriented_spacing),
        palette=mask.palette,
        half_extent=_half_extent(along_axes != 0, facts.oriented_spacing),
        largest_parts=largest_parts,
        eroded_parts=eroded_parts,
        grid_distance=mask.grid_distance,
        decisions=tuple(dict.fromkeys((*facts.decisions, *((one.rule, one.text) for one in mask.decisions)))),
    )


def _image_facts(
    case: str, hashes: tuple[tuple[str, ...], tuple[str, ...]], volume: Volume, transform: Transform
) -> CaseFacts:
    oriented = np.ascontiguousarray(orient(volume.data, transform))
    spacing = oriented_spacing(volume.spacing, transform)
    return CaseFacts(
        case=case,
        image_sha256=hashes[0],
        label_sha256=hashes[1],
        unit=volume.unit,
        native_shape=volume.shape,
        affine=tuple(map(tuple, volume.affine.tolist())),
        spacing=volume.spacing,
        oriented_shape=(oriented.shape[1], oriented.shape[2], oriented.shape[3]),
        oriented_spacing=spacing,
        dtype=volume.data.dtype.name,
        intensity=tuple(map(_intensity, oriented)),
        content_sha256=_voxel_hash(oriented),
        channel_sha256=_channel_hashes(oriented),
        steepest_jump=_steepest_jump(oriented[0], spacing),
        decisions=tuple(dict.fromkeys((one.rule, one.text) for one in volume.decisions)),
        patient_hash=volume.patient_hash,
    )


def _refuse_images(path: Path, labels: np.ndarray, values: Mapping[int, int], unit: str, choices: Choices) -> None:
    """Refuse a mask with the values of an image. Greys of pictures are handled later, over all masks."""
    if len(values) > MAX_LABEL_VALUES:
        raise InputError(f"{path}: a mask has at most {MAX_LABEL_VALUES} values, got {len(values)}; is it an image?")
    in_doubt = unit == "mm" and len(values) > MANY_VALUES and choice("intensities-as-labels", choices) == "refuse"
    if in_doubt and _is_scattered(labels):
        raise InputError(
            f"{path}: has {len(values)} values that change from voxel to voxel, as intensities do: are images and "
            "masks swapped? --read intensities-as-labels=take takes them as classes"
        )


def _is_scattered(labels: np.ndarray) -> bool:
    """Return True if hardly any voxel, but those of the commonest value, equals its neighbour along the first axis."""
    values, counts = np.unique(labels.ravel()[: 2**20], return_counts=True)
    commonest = values[counts.argmax()]
    first, second = labels[:-1], labels[1:]
    inside = (first != commonest) | (second != commonest)
    return bool(inside.any() and (first == second)[inside].mean() < SCATTERED)


def _half_extent(foreground: np.ndarray, spacing: tuple[float, float, float]) -> tuple[float, float, float] | None:
    """Compute the distance of the foreground's outer edge from the image centre, for each axis."""
    if not (boxes := ndimage.find_objects(foreground.view(np.uint8))):
        return None
    sides = zip(boxes[0], foreground.shape, spacing, strict=True)
    x, y, z = (max(length / 2 - side.start, side.stop - length / 2) * pixel for side, length, pixel in sides)
    return x, y, z


def _centres(
    labels: np.ndarray, values: Mapping[int, int], spacing: tuple[float, float, float]
) -> dict[int, tuple[float, float, float]]:
    """Compute the centre of mass of every value but 0, from the image centre.

    The mask is read in planes across its longest axis: many values take no longer than few, pictures little memory.
    """
    known = np.array(list(values))
    sums = np.zeros((3, len(known)))
    longest = int(np.argmax(labels.shape))
    planes = np.moveaxis(labels, longest, 0)
    others = [axis for axis in range(3) if axis != longest]
    places = [coordinates.ravel() for coordinates in np.indices(planes.shape[1:])]
    for number, plane in enumerate(planes):
        index = np.searchsorted(known, plane).ravel()
        sums[longest] += number * np.bincount(index, minlength=len(known))
        for axis, place in zip(others, places, strict=True):
            sums[axis] += np.bincount(index, weights=place, minlength=len(known))
    middle = (np.array(labels.shape)[:, None] - 1) / 2
    centres = (sums / np.array(list(values.values())) - middle) * np.array(spacing)[:, None]
    return {value: (x, y, z) for value, (x, y, z) in zip(values, centres.T.tolist(), strict=True) if value != 0}


def _parts(
    labels: np.ndarray, values: Mapping[int, int], spacing: tuple[float, float, float]
) -> tuple[dict[int, float], dict[int, tuple[float, ...]]]:
    """Compute `largest_parts` and `eroded_parts`; the values are first renumbered from 0, one plane at a time."""
    foreground = np.array([value for value in values if value != 0])
    numbers = np.zeros(labels.shape, dtype=np.uint16)
    for plane, into in zip(labels, numbers, strict=True):
        into[...] = np.where(plane != 0, np.searchsorted(foreground, plane) + 1, 0)
    count = len(foreground) + 1
    largest = largest_shares(numbers, count)
    single = np.array([n if largest.get(n, 0) >= ONE_PART else 0 for n in range(count)], dtype=numbers.dtype)
    for plane in numbers:
        plane[...] = single[plane]
    eroded = eroded_shares(numbers, count, spacing, EROSIONS_MM)
    value_of = [0, *foreground.tolist()]
    return {value_of[n]: s for n, s in largest.items()}, {value_of[n]: s for n, s in eroded.items()}


def _intensity(channel: np.ndarray) -> ChannelIntensity:
    return {
        "min": float(channel.min()),
        "max": float(channel.max()),
        "mean": float(channel.mean(dtype=np.float64)),
        "std": float(channel.std(dtype=np.float64)),
        "percentiles": tuple(np.percentile(channel, PERCENTILES).tolist()),
    }


def _steepest_jump(channel: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """Divide the largest difference between neighbouring slices by the median; 1 for under five slices and pictures."""
    axis = spacing.index(max(spacing)) if max(spacing) > min(spacing) else 2
    if channel.shape[axis] < 5 or min(channel.shape) == 1:  # a picture has no neighbouring slices
        return 1.0
    pairs = itertools.pairwise(np.moveaxis(channel, axis, 0))
    differences = [float(np.abs(b.astype(np.float32) - a.astype(np.float32)).mean(dtype=np.float64)) for a, b in pairs]
    median = float(np.median(differences))
    return max(differences) / median if median > 0 else 1.0


def _voxel_hash(oriented: np.ndarray) -> str:
    """Hash voxels, whatever the compression, data type and orientation of their file and the order of the channels."""
    voxels = (np.ascontiguousarray(channel, dtype=np.float32).data for channel in oriented)
    channels = sorted(hashlib.sha256(channel).hexdigest() for channel in voxels)
    return hashlib.sha256(repr((oriented.shape, channels)).encode()).hexdigest()


def _channel_hashes(oriented: np.ndarray) -> tuple[str, ...]:
    """Hash each of several channels as a scan of its own; one of a single value tells no scan from another."""
    channels = oriented if len(oriented) > 1 else ()
    return tuple(_voxel_hash(channel[None]) for channel in channels if channel.min() < channel.max())
