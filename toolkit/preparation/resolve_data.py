"""The preprocessing of a data set, with every `auto` resolved from the facts of all its cases."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attunet.classes import IGNORE_LABEL
from attunet.config import DataConfig
from attunet.decisions import Decision
from attunet.errors import InputError
from attunet.preparation.case_facts import EROSIONS_MM, ORIENTATION, CaseFacts
from attunet.preparation.resolve_classes import Mappings, ResolvedClasses, resolve_classes
from attunet.sources.case_files import Source
from attunet.volumes.geometry import round_up
from attunet.volumes.postprocess import ONE_PART
from attunet.volumes.slices import COLOUR, GREY, MAX_SIDE
from attunet.volumes.spec import Normalization, Postprocessing, Preprocessing, PreprocessSpec

MARGIN_PIXELS = 8  # pixels added on each side of the labelled extent, as context for the outermost labels
NEARLY_WHOLE = 0.75  # share of a slice's side; around abdominal organs, it leaves out skin and air
SIZE_STEP = 32  # divisor of the window: networks of depth 5 halve it five times
MAX_AUTO_SIZE = 512  # the usual matrix of a CT slice; larger windows take four times the memory
FAR_SHORTER = 4  # ratio of axis lengths: a much shorter axis is a stack of a few slices of unknown distance
NEARLY_EQUAL = 1.01  # ratio up to which spacings count as equal; the last axis is then the slice axis
MIN_PADDING = -32768.0  # lowest value outside of a scan; a lower one is no 16-bit value, so the image is no CT
CT_AIR = -500.0  # air has -1000 HU and no tissue less than -200, so scans with darker voxels are in Hounsfield units
MIN_MASKS = 3  # masks needed to conclude that a class is one part; in fewer, a lesion may be single by chance
# Share of a class's voxels that must stay: 0.5 % is a fifth of the 2.5 % by which two readers of an organ usually
# differ (Dice about 0.95).
MIN_KEPT_SHARE = 0.995
SPACINGS_MM = (0.001, 1000.0)  # bounds of the spacing in a store
LARGEST_HALF = 65504.0  # the largest float16


@dataclass(frozen=True)
class Resolved(ResolvedClasses):
    """The classes of a data set, and its preprocessing with every `auto` replaced."""

    preprocessing: Preprocessing

    @property
    def spec(self) -> PreprocessSpec:
        return self.preprocessing.spec


def resolve(source: Source, facts: Sequence[CaseFacts], config: DataConfig) -> Resolved:
    """Resolve the section `[data]` for these cases; raises InputError if they do not fit together."""
    num_channels = _num_channels(facts)
    resolved = resolve_classes(source, facts)
    slice_axis = config.slice_axis if config.slice_axis != "auto" else _coarsest_axis(facts)
    plane = [axis for axis in range(3) if axis != slice_axis]
    spacing, size = _resolve_grid(facts, config, plane)
    normalization, mixed = _resolve_normalization(facts, config)
    _check_bounds(facts, plane, spacing, normalization)
    spec = PreprocessSpec(
        orientation=ORIENTATION if facts[0].unit == "mm" else None,
        slice_axis=slice_axis,
        spacing_mm=spacing,
        size=(size, size) if isinstance(size, int) else size,
        normalization=normalization,
        clip_percentiles=config.clip_percentiles,
        window=config.window,
        context_slices=config.context_slices,
        num_channels=num_channels,
    )
    largest_component = config.largest_component
    if largest_component == "auto":
        largest_component = _are_one_part(facts, resolved.mappings)
    erosion_mm = config.component_erosion_mm if largest_component else 0.0
    if erosion_mm == "auto":
        erosion_mm = _withstood_erosion(facts, resolved.mappings)
    preprocessing = Preprocessing(spec, Postprocessing(largest_component, erosion_mm))
    try:
        DataConfig.of(preprocessing)  # as trainings write it down: what it refuses would be found out by them
    except InputError as error:
        raise InputError(f"{error}; choose it, or a coarser data.spacing_mm") from None
    decisions = (*resolved.decisions, *mixed)
    return Resolved(resolved.source, resolved.classes, resolved.mappings, decisions, preprocessing)


def _num_channels(facts: Sequence[CaseFacts]) -> int:
    """The number of channels of every case; grey pictures among colour pictures become colour (`with_channels`)."""
    most = max(facts, key=lambda fact: fact.num_channels)
    for other in facts:
        grey = other.unit == "pixel" and (other.num_channels, most.num_channels) == (GREY, COLOUR)
        if other.unit != most.unit or not (grey or other.num_channels == most.num_channels):
            raise InputError(
                f"{other.case}: every case must have the same channels and unit, got {other.num_channels} in "
                f"{other.unit} beside {most.num_channels} in {most.unit} ({most.case}); is a file missing? --images "
                "NAME,... chooses them"
            )
    return most.num_channels


def _resolve_normalization(facts: Sequence[CaseFacts], config: DataConfig) -> tuple[Normalization, list[Decision]]:
    """Resolve the normalization, with a decision if only some of the cases seem to be in Hounsfield units."""
    if config.normalization != "auto":
        return config.normalization, []
    normalization: Normalization = "ct" if _is_ct(statistics.median(f.intensity[0]["min"] for f in facts)) else "zscore"
    in_hounsfield = [fact.case for fact in facts if _is_ct(fact.intensity[0]["min"])]
    others = [fact.case for fact in facts if not _is_ct(fact.intensity[0]["min"])]
    if not in_hounsfield or not others:
        return normalization, []
    text = (
        f"{len(in_hounsfield)} of {len(facts)} cases have voxels below {CT_AIR:g} as CT has ({in_hounsfield[0]}), the "
        f"others not ({others[0]}); all are scaled by {normalization}"
    )
    return normalization, [Decision("mixed-intensities", text)]


def _is_ct(darkest: float) -> bool:
    return MIN_PADDING <= darkest <= CT_AIR


def _are_one_part(facts: Sequence[CaseFacts], mappings: Mappings) -> bool:
    """Return True if every class is one connected part in every mask, as organs are, unlike lesions or cells."""
    smallest = []
    for fact in facts:
        index_of = mappings.get(fact.case, {})
        shares = [share for value, share in fact.largest_parts.items() if index_of[value] not in (0, IGNORE_LABEL)]
        if shares:
            smallest.append(min(shares))
    return len(smallest) >= MIN_MASKS and min(smallest) >= ONE_PART


def _withstood_erosion(facts: Sequence[CaseFacts], mappings: Mappings) -> float:
    """Return the largest of `EROSIONS_MM` that removes almost nothing from the classes of the true label maps.

    The result is 0 if there are few masks, or a class is not one part.
    """
    shares: dict[int, list[tuple[float, ...]]] = {}
    for fact in facts:
        for value, kept in fact.eroded_parts.items():
            shares.setdefault(mappings[fact.case][value], []).append(kept)
    classes = [kept for index, kept in shares.items() if index not in (0, IGNORE_LABEL)]
    if not classes or not _are_one_part(facts, mappings):
        return 0.0
    worst = np.array([np.mean(kept, axis=0) for kept in classes]).min(axis=0)
    withstood = int(np.cumprod(worst >= MIN_KEPT_SHARE).sum())
    return float(EROSIONS_MM[withstood - 1]) if withstood else 0.0


def _coarsest_axis(facts: Sequence[CaseFacts]) -> int:
    """Return the slice axis: the axis of length 1, else the coarsest axis.

    If spacings are nearly equal, it is an axis far shorter than the others, else the last axis.
    """
    if facts[0].unit == "pixel":
        return 2
    spacing = [statistics.median(f.oriented_spacing[axis] for f in facts) for axis in range(3)]
    length = [statistics.median(f.oriented_shape[axis] for f in facts) for axis in range(3)]
    shortest = min(range(3), key=lambda axis: (length[axis], -axis))
    others = [length[axis] for axis in range(3) if axis != shortest]
    if length[shortest] == 1 and min(others) > 1:
        return shortest
    if max(spacing) <= NEARLY_EQUAL * min(spacing):
        return shortest if length[shortest] * FAR_SHORTER <= min(others) else 2
    return 2 if spacing[2] * NEARLY_EQUAL >= max(spacing) else spacing.index(max(spacing))


def _resolve_grid(
    facts: Sequence[CaseFacts], config: DataConfig, plane: Sequence[int]
) -> tuple[float | None, int | tuple[int, int]]:
    """Resolve spacing and size. If both are free and the labels need too large a window, pixels become coarser.

    Pictures without physical spacing keep their pixels (None), or get a spacing in pixels.
    """
    spacing = config.spacing_mm if config.spacing_mm != "auto" else _median_spacing(facts, plane)
    if config.size != "auto":
        return spacing, config.size
    size = _size(facts, plane, spacing)
    while config.spacing_mm == "auto" and size > MAX_AUTO_SIZE:
        spacing = float(f"{(spacing or 1.0) * max(1.05, size / MAX_AUTO_SIZE):.4g}")
        size = _size(facts, plane, spacing)
    return spacing, size


def _median_spacing(facts: Sequence[CaseFacts], plane: Sequence[int]) -> float | None:
    if facts[0].unit != "mm":
        return None
    spacing = float(f"{statistics.median(f.oriented_spacing[axis] for f in facts for axis in plane):.4g}")
    low, high = SPACINGS_MM
    if not low <= spacing <= high:
        raise InputError(
            f"{facts[0].case}: voxels of {spacing:g} mm are outside of {low:g} to {high:g}: does the header mean "
            "another unit? Choose the spacing with --set data.spacing_mm, or repair the headers"
        )
    return spacing


def _size(facts: Sequence[CaseFacts], plane: Sequence[int], spacing: float | None) -> int:
    """Return a multiple of 32 whose centred window holds all labels with a margin.

    A network is applied to whole slices, and may take for an organ what it never saw. So a window that would leave out
    much of them holds all of a slice, up to `MAX_AUTO_SIZE`.
    """
    needed = whole = 1
    for fact in facts:
        for axis, length in zip(plane, fact.resampled_lengths(plane, spacing), strict=True):
            whole = max(whole, length)
            if fact.half_extent is not None:
                # One pixel more, for resampling and for the centre of an odd length.
                native, pixel = fact.oriented_shape[axis], fact.oriented_spacing[axis]
                reach = math.ceil(fact.half_extent[axis] / pixel * length / native) + 1
                needed = max(needed, min(length, 2 * (reach + MARGIN_PIXELS)))
    if not any(fact.half_extent is not None for fact in facts):
        needed = whole
    elif needed < NEARLY_WHOLE * whole:
        needed = max(needed, min(whole, MAX_AUTO_SIZE))
    return round_up(needed, SIZE_STEP)


def _check_bounds(facts: Sequence[CaseFacts], plane: Sequence[int], spacing: float | None, normalization: str) -> None:
    """Refuse sizes and values that the store cannot hold, before anything is written."""
    for fact in facts:
        if (side := max(fact.resampled_lengths(plane, spacing))) > MAX_SIDE:
            limit = f"at most {MAX_SIDE} pixels a side after resampling are supported"
            raise InputError(f"{fact.case}: {limit}, got {side}")
        largest = max(max(abs(c["min"]), abs(c["max"])) for c in fact.intensity)
        if normalization == "none" and fact.dtype.startswith("float") and largest > LARGEST_HALF:
            raise InputError(
                f"{fact.case}: data.normalization none needs values within ±{LARGEST_HALF:g}, got {largest:g}"
            )
