"""What looks wrong with a data set or an input: rules over the facts of its cases, each with its figure."""

import itertools
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attunet.classes import Classes
from attunet.findings import Finding
from attunet.scan import CaseFacts
from attunet.source_files import SAME_GRID
from attunet.volume import Volume

MOST_GRID_DISTANCE = 1.0  # voxels; beyond it image and mask are of different places
FEWEST_FOR_OUTLIERS = 5
FAR_VOLUME = 3.0  # times the median, either way
FAR_SPACING = 1.5
FAR_EXTENT = 1.75
FAR_INTENSITY = 4.0
MOST_JUMP = 3.0  # of the usual difference between neighbouring slices
COMMON_CLASS = 0.8  # a class that so many cases have is expected in every one
DEVIATIONS = 5.0  # robust ones, as well as the factor above


def check_cases(
    facts: Sequence[CaseFacts], patients: Mapping[str, str], mappings: Mapping[str, Mapping[int, int]], classes: Classes
) -> list[Finding]:
    """Every finding of a data set, in the order of its rules.

    patients: of each case; mappings: per labelled case, label value -> class index.
    """
    voxels = {f.case: _voxels_per_class(f, mappings[f.case], len(classes)) for f in facts if f.case in mappings}
    return [
        *_grids(facts),
        *_masks(voxels, classes),
        *_sides(facts, mappings, classes),
        *_volumes(facts, voxels, classes),
        *_spacings(facts),
        *_intensities(facts),
        *_slices(facts),
        *_duplicates(facts, patients),
    ]


def _voxels_per_class(fact: CaseFacts, mapping: Mapping[int, int], num_classes: int) -> list[int]:
    counts = [0] * num_classes
    for value, count in (fact.label_values or {}).items():
        if mapping[value] < num_classes:
            counts[mapping[value]] += count
    return counts


def _grids(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    for fact in facts:
        if fact.grid_distance > SAME_GRID:
            far = fact.grid_distance > MOST_GRID_DISTANCE
            text = f"the mask's grid lies {fact.grid_distance:.3g} voxels from the image's, of the same shape"
            hint = "; where they belong together voxel by voxel, give the mask the image's affine" if far else ""
            yield Finding(fact.case, "grid-mismatch", fact.grid_distance, "error" if far else "warning", text + hint)


def _masks(voxels: Mapping[str, Sequence[int]], classes: Classes) -> Iterator[Finding]:
    share = {i: sum(v[i] > 0 for v in voxels.values()) / len(voxels) for i in range(1, len(classes)) if voxels}
    for index, present in share.items():
        if present == 0:
            yield Finding(None, "missing-class", 0, "warning", f"no case has {classes.names[index]}")
    for case, counts in voxels.items():
        if not any(counts[1:]):
            yield Finding(case, "empty-mask", 0, "warning", "the mask is empty")
            continue
        if missing := [classes.names[i] for i, present in share.items() if not counts[i] and present >= COMMON_CLASS]:
            yield Finding(case, "missing-class", len(missing), "warning", f"the mask has no {', '.join(missing)}, which most cases have")


def _sides(facts: Sequence[CaseFacts], mappings: Mapping[str, Mapping[int, int]], classes: Classes) -> Iterator[Finding]:
    """Paired organs, told by left and right in their names, in patient coordinates: the first oriented axis runs to the left."""
    lefts = {organ: index for index, name in enumerate(classes.names) if (organ := _without_side(name, "left"))}
    pairs = [
        (right, lefts[organ], organ.replace("*", " ").strip())
        for right, name in enumerate(classes.names)
        if (organ := _without_side(name, "right")) in lefts and organ
    ]
    for fact in facts:
        if fact.unit != "mm" or fact.case not in mappings:
            continue
        centres = {mappings[fact.case][value]: centre[0] for value, centre in fact.label_centres.items()}
        for right, left, organ in pairs:
            if right in centres and left in centres and (apart := centres[left] - centres[right]) < 0:
                text = f"right and left {organ} look swapped: the right one lies {-apart:.0f} mm to the left of the left one"
                yield Finding(fact.case, "swapped-sides", apart, "warning", text)


def _without_side(name: str, side: str) -> str | None:
    """The name with a star for the side, None where it has none: `right kidney`, `kidney_right`, `right-kidney`."""
    found = re.sub(rf"(?<![a-z]){side}(?![a-z])", "*", name.lower(), count=1)
    return found if found != name.lower() else None


def _volumes(facts: Sequence[CaseFacts], voxels: Mapping[str, Sequence[int]], classes: Classes) -> Iterator[Finding]:
    size = {f.case: math.prod(f.spacing) for f in facts}
    unit = "ml" if facts and facts[0].unit == "mm" else "pixels"
    per_unit = 1000 if unit == "ml" else 1
    for index in range(1, len(classes)):
        figures = {case: counts[index] * size[case] / per_unit for case, counts in voxels.items() if counts[index]}
        for case, value, middle in far_from_the_rest(figures, FAR_VOLUME):
            text = f"{classes.names[index]} has {value:.4g} {unit}, the median is {middle:.4g}"
            yield Finding(case, "volume-outlier", value / middle, "warning", text)


def _spacings(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    for axis in range(3):
        spacing = {f.case: f.oriented_spacing[axis] for f in facts}
        for case, value, middle in far_from_the_rest(spacing, FAR_SPACING):
            text = f"spacing along axis {axis} is {value:.4g} {facts[0].unit}, the median is {middle:.4g}"
            yield Finding(case, "spacing-outlier", value / middle, "warning", text)
        extent = {f.case: f.oriented_spacing[axis] * f.oriented_shape[axis] for f in facts}
        for case, value, middle in far_from_the_rest(extent, FAR_EXTENT):
            text = f"extent along axis {axis} is {value:.4g} {facts[0].unit}, the median is {middle:.4g}"
            yield Finding(case, "size-outlier", value / middle, "warning", text)


def _intensities(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    for fact in facts:
        if any(channel["min"] == channel["max"] for channel in fact.intensity):
            yield Finding(fact.case, "constant-image", fact.intensity[0]["min"], "warning", "every voxel has the same value")
    for channel in range(min((f.num_channels for f in facts), default=0)):
        spread = {f.case: f.intensity[channel]["std"] for f in facts if f.intensity[channel]["std"] > 0}
        for case, value, middle in far_from_the_rest(spread, FAR_INTENSITY):
            text = f"intensities of channel {channel} deviate by {value:.4g}, the median is {middle:.4g}"
            yield Finding(case, "intensity-outlier", value / middle, "warning", text)


def _slices(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    for fact in facts:
        if fact.steepest_jump > MOST_JUMP:
            text = f"two neighbouring slices differ {fact.steepest_jump:.3g} times as much as is usual in this volume"
            yield Finding(fact.case, "slice-jump", fact.steepest_jump, "warning", text)


def _duplicates(facts: Sequence[CaseFacts], patients: Mapping[str, str]) -> Iterator[Finding]:
    same: defaultdict[str, list[str]] = defaultdict(list)
    for fact in facts:
        same[fact.content_sha256].append(fact.case)
    for first, *others in same.values():
        for other in others:
            if patients[first] == patients[other]:
                yield Finding(other, "duplicate", 2, "warning", f"has the same voxels as {first}")
            else:
                text = f"has the same voxels as {first} of another patient, so that folds would leak into each other"
                yield Finding(other, "duplicate", 2, "error", text)


def far_from_the_rest(figures: Mapping[str, float], factor: float) -> list[tuple[str, float, float]]:
    """Cases whose positive figure is `factor` from the median either way, and far on the scale on which the others vary.

    Returns (case, figure, median); nothing where there are too few to tell.
    """
    if len(figures) < FEWEST_FOR_OUTLIERS:
        return []
    logs = {case: math.log(value) for case, value in figures.items()}
    middle = statistics.median(logs.values())
    spread = 1.4826 * statistics.median(abs(v - middle) for v in logs.values())
    least = max(math.log(factor), DEVIATIONS * spread)
    return [(case, figures[case], math.exp(middle)) for case, value in logs.items() if abs(value - middle) > least]


def training_ranges(facts: Sequence[CaseFacts]) -> dict[str, Any]:
    """What the cases span, as JSON: for `check_input`, with the model. Along the oriented axes; intensities per channel."""
    return {
        "unit": facts[0].unit,
        "spacing": [[min(v), max(v)] for v in zip(*(f.oriented_spacing for f in facts), strict=True)],
        "extent": [
            [min(v), max(v)]
            for v in zip(*([s * n for s, n in zip(f.oriented_spacing, f.oriented_shape, strict=True)] for f in facts), strict=True)
        ],
        "std": [[min(v), max(v)] for v in zip(*([c["std"] for c in f.intensity] for f in facts), strict=True)],
    }


def check_input(volume: Volume, ranges: Mapping[str, Any], orientation: str | None) -> list[Finding]:
    """Warnings where an input is far outside what the model was trained on. ranges: of `training_ranges`; orientation: of the spec."""
    from attunet.geometry import orientation_transform, oriented_spacing

    transform = orientation_transform(volume.affine, orientation)
    spacing = oriented_spacing(volume.spacing, transform)
    shape = oriented_spacing(volume.shape, transform)
    figures = itertools.chain(
        (("spacing", f"spacing along axis {a} ({volume.unit})", spacing[a], ranges["spacing"][a], FAR_SPACING) for a in range(3)),
        (("size", f"extent along axis {a} ({volume.unit})", spacing[a] * shape[a], ranges["extent"][a], FAR_EXTENT) for a in range(3)),
        (
            ("intensity", f"deviation of intensities in channel {c}", float(channel.std()), limits, FAR_INTENSITY)
            for c, (channel, limits) in enumerate(zip(volume.data, ranges["std"], strict=False))
        ),
    )
    return [
        Finding(None, f"untrained-{rule}", value, "warning", f"{what} is {value:.4g}, training had {low:.4g} to {high:.4g}")
        for rule, what, value, (low, high), factor in figures
        if not low / factor <= value <= high * factor
    ]
