"""Checks of a data set: rules over the facts of its cases, each with its figure."""

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from operator import truediv

import numpy as np

from attunet.channels import telling_channels
from attunet.classes import Classes
from attunet.errors import Finding
from attunet.preparation.case_facts import CaseFacts
from attunet.preparation.resolve_classes import Mappings, ResolvedClasses
from attunet.preparation.resolve_data import NEARLY_WHOLE
from attunet.sources.read_case import SAME_GRID
from attunet.sources.splits import Splits
from attunet.volumes.spec import PreprocessSpec
from attunet.volumes.training_ranges import FAR_EXTENT, FAR_SPACING, TrainingRanges, range_of

MAX_GRID_DISTANCE = 1.0  # voxels; beyond it, image and mask show different places
MIN_CASES_FOR_OUTLIERS = 5
FAR_VOLUME = 3.0  # ratio to the median, or its inverse
FAR_INTENSITY = 4.0
FAR_SHIFT = 2.0  # distance of a mean intensity from the median case, in median standard deviations of a case
MAX_JUMP = 3.0  # ratio to the median difference between neighbouring slices
MANY_CASES = 4  # from this number of cases on, a class in a single case is reported
COMMON_CLASS = 0.8  # a class that this fraction of the cases has is expected in every case
DEVIATIONS = 5.0  # robust standard deviations that an outlier must also exceed


def check_cases(facts: Sequence[CaseFacts], resolved: ResolvedClasses, splits: Splits | None) -> list[Finding]:
    """Check a data set by all rules. splits: the user's own folds; None if folds are drawn."""
    classes, mappings = resolved.classes, resolved.mappings
    patients = {case.case: case.patient for case in resolved.source.cases}
    voxels = {f.case: _voxels_per_class(f, mappings[f.case], len(classes)) for f in facts if f.case in mappings}
    return [
        *_grids(facts),
        *_masks(voxels, classes, {case.case: case.drawn for case in resolved.source.cases}),
        *_sides(facts, mappings, classes),
        *_volumes(facts, voxels, classes),
        *_spacings(facts),
        *_intensities(facts),
        *_slices(facts),
        *_duplicates(facts, patients, splits.places() if splits else {}),
    ]


def check_window(facts: Sequence[CaseFacts], spec: PreprocessSpec) -> list[Finding]:
    """Check that the window of the training shows nearly whole slices, to which the network is applied."""
    columns, rows = (axis for axis in range(3) if axis != spec.slice_axis)
    slices = {fact.case: fact.resampled_lengths((rows, columns), spec.spacing_mm) for fact in facts}
    shares = {case: min(map(truediv, spec.size, sides)) for case, sides in slices.items()}
    case, share = min(shares.items(), key=lambda item: item[1])
    if share >= NEARLY_WHOLE:
        return []
    text = (
        f"the training window of {spec.size[0]} × {spec.size[1]} pixels shows {share:.0%} of a side of the slices of "
        f"{case}, and prediction goes over all: what looks like an organ outside of it may be taken for one; choose a "
        "larger data.size or data.spacing_mm"
    )
    return [Finding(None, "small-window", share, "warning", text)]


def _voxels_per_class(fact: CaseFacts, mapping: Mapping[int, int], num_classes: int) -> list[int]:
    counts = [0] * num_classes
    for value, count in fact.values.items():
        if mapping[value] < num_classes:
            counts[mapping[value]] += count
    return counts


def _grids(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    for fact in facts:
        if fact.grid_distance > SAME_GRID:
            far = fact.grid_distance > MAX_GRID_DISTANCE
            text = f"the mask's grid lies {fact.grid_distance:.3g} voxels from the image's, of the same shape"
            hint = "; where they belong together voxel by voxel, give the mask the image's affine" if far else ""
            yield Finding(fact.case, "grid-mismatch", fact.grid_distance, "error" if far else "warning", text + hint)


def _masks(
    voxels: Mapping[str, Sequence[int]], classes: Classes, drawn: Mapping[str, Sequence[str] | None]
) -> Iterator[Finding]:
    """Find classes that masks lack. drawn: names of the classes of each case that were drawn, None for all."""
    if not voxels:
        return
    missing: dict[str, list[str]] = {case: [] for case in voxels}
    for index, name in enumerate(classes.foreground, 1):
        cases = [case for case in voxels if (names := drawn[case]) is None or name in names]
        having = [case for case in cases if voxels[case][index]]
        if not having:
            yield Finding(None, "missing-class", 0, "warning", f"no case has {name}")
        elif len(having) == 1 and len(cases) >= MANY_CASES:
            count = voxels[having[0]][index]
            yield Finding(
                having[0], "rare-class", count, "warning", f"no other case has {name} ({count:,} voxels here)"
            )
        if having and len(having) / len(cases) >= COMMON_CLASS:
            for case in set(cases) - set(having):
                missing[case].append(name)
    for case, counts in voxels.items():
        if not any(counts[1:]):
            yield Finding(case, "empty-mask", 0, "warning", "the mask is empty")
        elif missing[case]:
            text = f"the mask has no {', '.join(missing[case])}, which most cases have"
            yield Finding(case, "missing-class", len(missing[case]), "warning", text)


def _sides(facts: Sequence[CaseFacts], mappings: Mappings, classes: Classes) -> Iterator[Finding]:
    """Find paired organs, named left and right, whose sides look swapped. The first oriented axis runs to the left."""
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
                place = f"the right one lies {-apart:.0f} mm to the left of the left one"
                text = f"right and left {organ} look swapped: {place}"
                yield Finding(fact.case, "swapped-sides", apart, "warning", text)


def _without_side(name: str, side: str) -> str | None:
    """Replace the side in a name (`right kidney`, `kidney_right`, `right-kidney`) by a star; None if it has no side."""
    starred = re.sub(rf"(?<![a-z]){side}(?![a-z])", "*", name.lower(), count=1)
    return starred if starred != name.lower() else None


def _volumes(facts: Sequence[CaseFacts], voxels: Mapping[str, Sequence[int]], classes: Classes) -> Iterator[Finding]:
    size = {f.case: abs(float(np.linalg.det(np.array(f.affine)[:3, :3]))) for f in facts}
    unit, per_unit = ("ml", 1000) if facts[0].unit == "mm" else ("pixels", 1)
    for index, name in enumerate(classes.foreground, 1):
        figures = {case: counts[index] * size[case] / per_unit for case, counts in voxels.items() if counts[index]}
        yield from _outliers("volume-outlier", figures, FAR_VOLUME, f"{name} has", f" {unit}")


def _spacings(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    unit = f" {facts[0].unit}"
    for axis in range(3):
        spacing = {f.case: f.oriented_spacing[axis] for f in facts}
        extent = {f.case: f.extent[axis] for f in facts}
        yield from _outliers("spacing-outlier", spacing, FAR_SPACING, f"spacing along axis {axis} is", unit)
        yield from _outliers("size-outlier", extent, FAR_EXTENT, f"extent along axis {axis} is", unit)


def _intensities(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    for fact in facts:
        if any(channel["min"] == channel["max"] for channel in fact.intensity):
            darkest = fact.intensity[0]["min"]
            yield Finding(fact.case, "constant-image", darkest, "warning", "every voxel has the same value")
    for channel in range(min(f.num_channels for f in facts)):
        spread = {f.case: f.intensity[channel]["std"] for f in facts if f.intensity[channel]["std"] > 0}
        yield from _outliers("intensity-outlier", spread, FAR_INTENSITY, f"intensities of channel {channel} deviate by")
        yield from _shifts(facts, channel)


def _shifts(facts: Sequence[CaseFacts], channel: int) -> Iterator[Finding]:
    """Find cases whose mean intensity is far from that of the others: a CT in other units, an inverted picture."""
    means = {f.case: f.intensity[channel]["mean"] for f in facts}
    if len(means) < MIN_CASES_FOR_OUTLIERS:
        return
    middle, spread = _middle_and_spread(means.values())
    usual = statistics.median(f.intensity[channel]["std"] for f in facts)
    for case, mean in means.items():
        if usual > 0 and abs(mean - middle) > max(FAR_SHIFT * usual, DEVIATIONS * spread):
            means_of = f"{mean:.4g} on average, the median is {middle:.4g} (they deviate by {usual:.4g})"
            text = f"intensities of channel {channel} are {means_of}"
            yield Finding(case, "intensity-outlier", (mean - middle) / usual, "warning", text)


def _slices(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    for fact in facts:
        if fact.steepest_jump > MAX_JUMP:
            text = f"two neighbouring slices differ {fact.steepest_jump:.3g} times as much as is usual in this volume"
            yield Finding(fact.case, "slice-jump", fact.steepest_jump, "warning", text)


def _duplicates(
    facts: Sequence[CaseFacts], patients: Mapping[str, str], places: Mapping[str, int]
) -> Iterator[Finding]:
    """Find cases with the same voxels, which no fold may part: `places` is each patient's, if not drawn here."""
    contents = {fact.case: fact.content_sha256 for fact in facts}
    pairs = ((first, other) for first, *others in same_scans(facts, patients) for other in others)
    for first, other in dict.fromkeys(pairs):
        pair = {patients[first], patients[other]}
        leaks = len({places[patient] for patient in pair if patient in places}) > 1
        whole = contents[first] == contents[other]
        if len(pair) == 1 and not whole:
            continue  # visits of one patient may share a channel
        where = "" if whole else " in one channel"
        text = f"has the same voxels{where} as {first}"
        if leaks:
            text = f"{text}, which is in another fold: one would leak into the other"
        elif len(pair) > 1:
            text = f"{text} of another patient; folds and the test set do not part them"
        yield Finding(other, "duplicate", 2, "error" if leaks and whole else "warning", text)


def same_scans(facts: Sequence[CaseFacts], patients: Mapping[str, str]) -> list[list[str]]:
    """Group cases with the same voxels, in all channels or in one that tells a scan; a case may be in several groups.
    Images of a single value are left out, since they contain nothing to leak. patients: those of all cases.
    """
    telling = telling_channels((patients[fact.case], fact.channel_sha256) for fact in facts)
    same: defaultdict[str, list[str]] = defaultdict(list)
    for fact in facts:
        if any(channel["min"] < channel["max"] for channel in fact.intensity):
            channels = [digest for digest in fact.channel_sha256 if digest in telling]
            for digest in dict.fromkeys((fact.content_sha256, *channels)):
                same[digest].append(fact.case)
    return [cases for cases in same.values() if len(cases) > 1]


def _outliers(rule: str, figures: Mapping[str, float], factor: float, words: str, unit: str = "") -> Iterator[Finding]:
    for case, value, middle in far_from_the_rest(figures, factor):
        yield Finding(case, rule, value / middle, "warning", f"{words} {value:.4g}{unit}, the median is {middle:.4g}")


def far_from_the_rest(figures: Mapping[str, float], factor: float) -> list[tuple[str, float, float]]:
    """Find outliers among the positive figures of cases, as (case, figure, median); none in a few cases.

    The ratio of an outlier to the median is at least `factor`, or at most its inverse, and more than `DEVIATIONS`
    robust standard deviations away.
    """
    if len(figures) < MIN_CASES_FOR_OUTLIERS:
        return []
    logs = {case: math.log(value) for case, value in figures.items()}
    middle, spread = _middle_and_spread(logs.values())
    minimum = max(math.log(factor), DEVIATIONS * spread)
    return [(case, figures[case], math.exp(middle)) for case, value in logs.items() if abs(value - middle) > minimum]


def _middle_and_spread(values: Collection[float]) -> tuple[float, float]:
    """The median, and the robust standard deviation."""
    middle = statistics.median(values)
    return middle, 1.4826 * statistics.median(abs(value - middle) for value in values)


def training_ranges(facts: Sequence[CaseFacts]) -> TrainingRanges:
    """Compute the ranges over all cases, for `attunet.volumes.training_ranges.check_input`."""
    channels = max(f.num_channels for f in facts)
    intensities = list(zip(*(f.channels(channels) for f in facts), strict=True))
    return TrainingRanges(
        unit=facts[0].unit,
        spacing=tuple(range_of(axis) for axis in zip(*(f.oriented_spacing for f in facts), strict=True)),
        extent=tuple(range_of(axis) for axis in zip(*(f.extent for f in facts), strict=True)),
        std=tuple(range_of([c["std"] for c in channel]) for channel in intensities),
        mean=tuple(range_of([c["mean"] for c in channel]) for channel in intensities),
    )
