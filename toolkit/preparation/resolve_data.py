"""What `auto` means for a data set: preprocessing and label coding, decided from the facts of all its cases."""

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from attunet.classes import IGNORE_LABEL, Classes
from attunet.config import DataConfig
from attunet.errors import InputError
from attunet.preparation.case_facts import EROSIONS_MM, ORIENTATION, CaseFacts
from attunet.sources.case_files import Source
from attunet.sources.codings import classes_of_values
from attunet.volumes.geometry import resampled_length, round_up
from attunet.volumes.postprocess import ONE_PART
from attunet.volumes.slices import COLOUR, GREY, MAX_SIDE
from attunet.volumes.spec import Postprocessing, Preprocessing, PreprocessSpec

MARGIN_PIXELS = 8  # around the labelled extent, either side
SIZE_STEP = 32
LARGEST_AUTO_SIZE = 512
NEARLY_EQUAL = 1.01  # slice spacings this close count as the same, and the last axis is taken
CT_AIR = -500.0  # scans whose darkest voxels lie below it are in Hounsfield units
EDGES = (16, 240)  # greys of smoothed edges, between what was meant as 0 and as 255
FEWEST_GREYS = 16  # so many different values are no classes
MOST_EDGES = 0.1  # of all pixels
MOST_STRAY = 0.02  # of the white ones
FEWEST_MASKS = 3  # that say that a class is one part
WITHSTANDS = 0.995  # of a class's voxels, on average over the masks
LARGEST_HALF = 65504.0  # the largest float16


@dataclass(frozen=True)
class Settled:
    """mappings: per labelled case, label value -> class index."""

    preprocessing: Preprocessing
    classes: Classes
    mappings: dict[str, dict[int, int]]

    @property
    def spec(self) -> PreprocessSpec:
        return self.preprocessing.spec


def settle(source: Source, facts: Sequence[CaseFacts], config: DataConfig) -> Settled:
    """Decide everything that the preparation of each case needs. Raises InputError where the cases do not fit together."""
    first = facts[0]
    most = max(facts, key=lambda fact: fact.num_channels)
    for other in facts:
        grey = other.unit == "pixel" and (other.num_channels, most.num_channels) == (GREY, COLOUR)  # becomes colour: `as_colour`
        if other.unit != most.unit or not (grey or other.num_channels == most.num_channels):
            raise InputError(
                f"{other.case}: every case must have the same channels and unit, got {other.num_channels} in {other.unit} "
                f"beside {most.num_channels} in {most.unit} ({most.case})"
            )
    classes, mappings = _settle_classes(_without_smooth_edges(source, facts), facts)
    slice_axis = config.slice_axis if config.slice_axis != "auto" else _coarsest_axis(facts)
    plane = [axis for axis in range(3) if axis != slice_axis]
    spacing, size = _settle_grid(facts, config, plane)
    normalization = config.normalization
    if normalization == "auto":
        normalization = "ct" if statistics.median(f.intensity[0]["min"] for f in facts) <= CT_AIR else "zscore"
    _check_bounds(facts, plane, spacing, normalization)
    spec = PreprocessSpec(
        orientation=ORIENTATION if first.unit == "mm" else None,
        slice_axis=slice_axis,
        spacing_mm=spacing,
        size=(size, size) if isinstance(size, int) else size,
        normalization=normalization,
        clip_percentiles=config.clip_percentiles,
        window=config.window,
        context_slices=config.context_slices,
        num_channels=most.num_channels,
    )
    largest_component = _are_one_part(facts, mappings) if config.largest_component == "auto" else config.largest_component
    erosion_mm = config.component_erosion_mm if largest_component else 0.0
    if erosion_mm == "auto":
        erosion_mm = _withstood_erosion(facts, mappings)
    return Settled(Preprocessing(spec, Postprocessing(largest_component, erosion_mm)), classes, mappings)


def _without_smooth_edges(source: Source, facts: Sequence[CaseFacts]) -> Source:
    """Black-and-white masks whose edges some program has smoothed: everything from the middle grey on is the foreground."""
    total: Counter[int] = Counter()
    for fact in facts:
        total.update(fact.label_values or {})
    if source.codings or facts[0].unit != "pixel" or not total or (min(total), max(total)) != (0, 255):
        return source
    others = {value: count for value, count in total.items() if value not in (0, 255)}
    between = sum(count for value, count in others.items() if EDGES[0] < value < EDGES[1])
    smooth = len(total) > FEWEST_GREYS and between <= MOST_EDGES * total.total()
    nearly = between == 0 and 0 < sum(others.values()) <= MOST_STRAY * total[255]  # few black and white pixels that are not quite so
    if not (smooth or nearly):
        return source
    return dataclasses.replace(source, codings=(classes_of_values((0, 255), source.root),), grey_ranges=((0, 127), (128, 255)))


def _settle_classes(source: Source, facts: Sequence[CaseFacts]) -> tuple[Classes, dict[str, dict[int, int]]]:
    """The coding that all masks share, and each mask's values as class indices. A mask may lack classes.

    Where copies of a data set are mixed, the first coding; without any, one made of the values of all masks.
    """
    labels = {c.case: c.labels[0] if c.labels else c.case for c in source.cases}
    values = {f.case: f.label_values for f in facts if f.label_values is not None}
    if not source.codings:
        if not values:
            raise InputError(f"{source.root}: without masks the classes cannot be known; name them with --classes")
        everything = {v for found in values.values() for v in found} - {source.ignored}
        classes = classes_of_values([v for v in everything if v is not None], source.root)
        codings = dict.fromkeys(values, classes)
    else:
        codings = {case: source.coding(found, labels[case]) for case, found in values.items()}
        telling = {codings[case] for case, found in values.items() if len(found) > 1}
        classes = telling.pop() if len(telling) == 1 else source.codings[0]
    return classes, {case: {v: _index(source, codings[case], v) for v in found} for case, found in values.items()}


def _index(source: Source, coding: Classes, value: int) -> int:
    canonical = source.canonical(value)
    return IGNORE_LABEL if canonical == source.ignored else coding.values.index(canonical)


def _are_one_part(facts: Sequence[CaseFacts], mappings: Mapping[str, Mapping[int, int]]) -> bool:
    """Whether every class is one connected part in every mask, as organs are and lesions or cells are not."""
    shares = [
        [share for value, share in fact.largest_parts.items() if mappings[fact.case][value] not in (0, IGNORE_LABEL)]
        for fact in facts
        if fact.case in mappings
    ]
    masks = [found for found in shares if found]
    return len(masks) >= FEWEST_MASKS and all(min(found) >= ONE_PART for found in masks)


def _withstood_erosion(facts: Sequence[CaseFacts], mappings: Mapping[str, Mapping[int, int]]) -> float:
    """The widest of `EROSIONS_MM` up to which true label maps keep nearly all of every class; 0 where masks are few or not of one part."""
    shares: dict[int, list[tuple[float, ...]]] = {}
    for fact in facts:
        for value, found in fact.eroded_parts.items():
            shares.setdefault(mappings[fact.case][value], []).append(found)
    classes = [found for index, found in shares.items() if index not in (0, IGNORE_LABEL)]
    if not classes or not _are_one_part(facts, mappings):
        return 0.0
    worst = np.array([np.mean(found, axis=0) for found in classes]).min(axis=0)
    withstood = int(np.cumprod(worst >= WITHSTANDS).sum())
    return float(EROSIONS_MM[withstood - 1]) if withstood else 0.0


def _coarsest_axis(facts: Sequence[CaseFacts]) -> int:
    spacing = [statistics.median(f.oriented_spacing[axis] for f in facts) for axis in range(3)]
    if facts[0].unit == "pixel" or spacing[2] * NEARLY_EQUAL >= max(spacing):
        return 2
    return spacing.index(max(spacing))


def _settle_grid(facts: Sequence[CaseFacts], config: DataConfig, plane: Sequence[int]) -> tuple[float | None, int | tuple[int, int]]:
    """Spacing and size. Where both are free and the labels need a larger window than is trained with, pixels become coarser.

    Pictures without physical spacing keep their pixels (None), or have a spacing in pixels.
    """
    spacing = config.spacing_mm if config.spacing_mm != "auto" else _median_spacing(facts, plane)
    if config.size != "auto":
        return spacing, config.size
    size = _smallest_size(facts, plane, spacing)
    while config.spacing_mm == "auto" and size > LARGEST_AUTO_SIZE:
        spacing = float(f"{(spacing or 1.0) * max(1.05, size / LARGEST_AUTO_SIZE):.4g}")
        size = _smallest_size(facts, plane, spacing)
    return spacing, size


def _median_spacing(facts: Sequence[CaseFacts], plane: Sequence[int]) -> float | None:
    if facts[0].unit != "mm":
        return None
    return float(f"{statistics.median(f.oriented_spacing[axis] for f in facts for axis in plane):.4g}")


def _smallest_size(facts: Sequence[CaseFacts], plane: Sequence[int], spacing: float | None) -> int:
    """The smallest multiple of 32 that holds every label, measured around the image centre, with a margin; at most the whole images."""
    needed = whole = 1
    for fact in facts:
        for axis in plane:
            native, pixel = fact.oriented_shape[axis], fact.oriented_spacing[axis]
            length = resampled_length(native, pixel, spacing)
            whole = max(whole, length)
            if fact.half_extent is not None:
                # One pixel more, for resampling and for the centre of an odd length.
                reach = math.ceil(fact.half_extent[axis] / pixel * length / native) + 1
                needed = max(needed, min(length, 2 * (reach + MARGIN_PIXELS)))
    labelled = any(fact.half_extent is not None for fact in facts)
    return round_up(needed if labelled else whole, SIZE_STEP)


def _check_bounds(facts: Sequence[CaseFacts], plane: Sequence[int], spacing: float | None, normalization: str) -> None:
    """What would fail in the middle of the work fails before anything is written."""
    for fact in facts:
        lengths = [resampled_length(fact.oriented_shape[axis], fact.oriented_spacing[axis], spacing) for axis in plane]
        if max(lengths) > MAX_SIDE:
            raise InputError(f"{fact.case}: at most {MAX_SIDE} pixels a side after resampling are supported, got {max(lengths)}")
        largest = max(max(abs(c["min"]), abs(c["max"])) for c in fact.intensity)
        if normalization == "none" and fact.dtype.startswith("float") and largest > LARGEST_HALF:
            raise InputError(f"{fact.case}: data.normalization none needs values within ±{LARGEST_HALF:g}, got {largest:g}")
