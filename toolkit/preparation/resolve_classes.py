"""The classes of a data set, and the class of every label value in its masks, from the facts of all cases."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from attunet.classes import IGNORE_LABEL, Classes
from attunet.decisions import Decision
from attunet.errors import InputError
from attunet.io.pictures.images import is_jpeg
from attunet.io.pictures.mask_colours import colour_name, common_indices, is_colour
from attunet.preparation.case_facts import CaseFacts
from attunet.sources.case_files import Source
from attunet.sources.codings import classes_of_values, value_text
from attunet.sources.grey_levels import (
    MAX_CLASS_GREYS,
    MAX_EDGE_SHARE,
    MIN_EDGE_GREYS,
    are_levels,
    find_levels,
    find_peak,
)

VOID = 255  # the value to ignore by convention of some data sets


@dataclass(frozen=True)
class ResolvedClasses:
    """Classes and codings of a data set.

    Args:
        source: the source, with its grey levels.
        classes: in index order, background first.
        mappings: for each labelled case, label value -> class index.
        decisions: interpretations of the masks that may differ from the user's.
    """

    source: Source
    classes: Classes
    mappings: dict[str, dict[int, int]]
    decisions: tuple[Decision, ...] = ()


def resolve_classes(source: Source, facts: Sequence[CaseFacts]) -> ResolvedClasses:
    """Determine the classes, and the class index of each mask's label values. A mask may lack classes.

    If copies of a data set with different codings are mixed, the first coding is used. Without any coding, one is made
    from the values of all masks.

    Raises:
        InputError: a value has no class, a mask has no class, or the masks do not show which value is the background.
    """
    masks = {fact.case: fact for fact in facts if fact.label_values is not None}
    if source.codings:
        return _with_codings(source, masks)
    if not masks:
        raise InputError(f"{source.root}: without masks the classes cannot be known; name them with --classes")
    indices = _palette_indices(masks.values())
    if indices is not None:
        return _with_palette(source, masks, indices)
    levels = _grey_levels(source, masks.values())
    source = replace(source, grey_levels=levels)
    total = Counter[int]()
    for fact in masks.values():
        for value, count in (fact.label_values or {}).items():
            total[source.canonical(value)] += count
    check_background(source, total)
    _check_colours(source, total, masks.values())
    classes = classes_of_values([*total, *levels], source.root)
    mappings = {
        case: {value: classes.values.index(source.canonical(value)) for value in (*(fact.label_values or {}), *levels)}
        for case, fact in masks.items()
    }
    return ResolvedClasses(source, classes, mappings, tuple(_decisions(total, levels)))


def _decisions(total: Mapping[int, int], levels: Sequence[int]) -> list[Decision]:
    made = []
    if levels:
        made.append(
            Decision(
                "mask-greys", f"the greys {', '.join(map(str, levels))} are classes; those of smoothed edges join them"
            )
        )
    if colours := [colour_name(value) for value in sorted(total) if is_colour(value)]:
        made.append(Decision("mask-colours", f"a colour is a class, the same in all files: {', '.join(colours)}"))
    others = [value for value in total if value not in (0, VOID)]
    if not levels and VOID in total and others and max(others) < VOID // 2:
        made.append(Decision("value-255", "255 is a class like the others, not a value to ignore"))
    return made


def _check_colours(source: Source, total: Mapping[int, int], masks: Collection[CaseFacts]) -> None:
    """Refuse masks whose many colours come from smoothed edges."""
    regions = sum((Counter(fact.label_regions) for fact in masks), Counter[int]())
    edges = [value for value in sorted(total) if is_colour(value) and not regions[value]]
    classes = [value for value in sorted(total) if is_colour(value) and regions[value]]
    if (
        not classes
        or len(edges) < MIN_EDGE_GREYS
        or sum(total[value] for value in edges) > MAX_EDGE_SHARE * sum(total.values())
    ):
        return
    raise InputError(
        f"{source.root}: the masks have {len(edges)} colours that fill no region, as smoothed edges have, first "
        f"{colour_name(edges[0])}, beside {', '.join(map(colour_name, classes[:5]))}: save the masks without smoothing"
    )


def _grey_levels(source: Source, masks: Collection[CaseFacts]) -> tuple[int, ...]:
    total = _greys(masks)
    lossy = bool(set(total) - {0, 255}) and any(is_jpeg(path) for case in source.cases for path in case.labels)
    if any(fact.unit != "pixel" for fact in masks) and not lossy:
        return ()
    regions = sum((Counter(fact.label_regions) for fact in masks), Counter[int]())
    levels = find_levels(total, regions, lossy=lossy)
    if lossy and not levels:
        raise InputError(
            f"{source.root}: masks as JPEG, which changes values, must have few greys that are far apart and fill "
            "regions; save them as PNG"
        )
    if levels and (peak := find_peak(total, levels)) is not None:
        without = ",".join(f"NAME={level}" for level in levels[1:])
        raise InputError(
            f"{source.root}: the masks have a peak at grey {peak} between {', '.join(map(str, levels))}: a class, or "
            f"edges? Choose with --classes background={levels[0]},NAME={peak},{without} or --classes "
            f"background={levels[0]},{without}"
        )
    return levels


def _greys(masks: Collection[CaseFacts]) -> Counter[int]:
    return sum((Counter(fact.label_values or {}) for fact in masks), Counter[int]())


def _with_levels_of_user(source: Source, masks: Collection[CaseFacts]) -> Source:
    """Set the values of the classes as the grey levels of the source if the edges of the masks are smoothed."""
    total, values = _greys(masks), source.codings[0].values
    unknown = set(total) - set(values) - {source.ignored}
    if len(source.codings) > 1 or source.grey_ranges or not unknown or any(fact.unit != "pixel" for fact in masks):
        return source
    in_range = min((*total, *values)) >= 0 and max((*total, *values)) <= 255
    smoothed = in_range and len(total) > MAX_CLASS_GREYS and are_levels(total, values)
    return replace(source, grey_levels=tuple(sorted(values))) if smoothed else source


def check_background(source: Source, total: Mapping[int, int]) -> None:
    """Refuse masks that do not show that 0 is the background.

    Args:
        source: the source, which the message names.
        total: number of voxels of every label value, over all masks.
    """
    commonest = max(total, key=lambda value: (total[value], -value))
    if commonest == 0 or (set(total) == {0}):
        return
    others = ",".join(f"NAME={value_text(value)}" for value in sorted(total) if value != commonest)
    share = total[commonest] / sum(total.values())
    text = (
        "no mask has the value 0"
        if 0 not in total
        else f"the commonest value of the masks is {value_text(commonest)} ({share:.0%}), not 0"
    )
    zero = ",".join(f"NAME={value_text(value)}" for value in sorted(total) if value != 0)
    raise InputError(
        f"{source.root}: {text}, so nothing shows which is the background: give --classes "
        f"background={value_text(commonest)},{others} or --classes background=0,{zero}"
    )


def _with_codings(source: Source, masks: Mapping[str, CaseFacts]) -> ResolvedClasses:
    labels = {c.case: c.labels[0] if c.labels else c.case for c in source.cases}
    if any(fact.unit == "pixel" for fact in masks.values()) and {v for c in source.codings for v in c.values} <= set(
        range(256)
    ):
        indices = _palette_indices(masks.values())
        if indices is not None and not all(
            set(f.label_values or {}) <= set(source.codings[0].values) for f in masks.values()
        ):
            return _with_palette(source, masks, indices)
    source = _with_levels_of_user(source, masks.values())
    codings = {case: source.coding(fact.label_values or {}, labels[case]) for case, fact in masks.items()}
    several = {codings[case] for case, fact in masks.items() if len(fact.label_values or {}) > 1}
    classes = several.pop() if len(several) == 1 else source.codings[0]
    mappings = {
        case: {
            value: _index(source, codings[case], value) for value in (*(fact.label_values or {}), *source.grey_levels)
        }
        for case, fact in masks.items()
    }
    return ResolvedClasses(source, classes, mappings)


def _index(source: Source, coding: Classes, value: int) -> int:
    canonical = source.canonical(value)
    return IGNORE_LABEL if canonical == source.ignored else coding.values.index(canonical)


def _palette_indices(masks: Collection[CaseFacts]) -> dict[int, int] | None:
    """Return `{code: index}` if the palettes of all masks agree; None without palettes or if they differ."""
    if not any(fact.palette for fact in masks):
        return None
    indices = common_indices({fact.case: fact.palette for fact in masks})
    if indices is None or indices.get(0, 0) != 0:
        return None
    indices = {0: 0, **indices}
    return indices if all(set(fact.label_values or {}) <= set(indices) for fact in masks) else None


def _with_palette(source: Source, masks: Mapping[str, CaseFacts], indices: Mapping[int, int]) -> ResolvedClasses:
    total = Counter[int]()
    for fact in masks.values():
        for code, count in (fact.label_values or {}).items():
            total[indices[code]] += count
    if source.codings:
        classes = source.codings[0]
    else:
        check_background(source, total)
        classes = classes_of_values(total, source.root)
    if unknown := sorted(set(total) - set(classes.values) - {source.ignored}):
        raise InputError(
            f"{source.root}: label values must be among {', '.join(map(str, classes.values))}, got {unknown[0]}"
        )
    mappings = {
        case: {
            code: IGNORE_LABEL if indices[code] == source.ignored else classes.values.index(indices[code])
            for code in fact.label_values or {}
        }
        for case, fact in masks.items()
    }
    reading = Decision("mask-colours", "all palettes agree, so their indices are the label values")
    return ResolvedClasses(source, classes, mappings, (reading,))
