"""The classes of a data set, and the class of every label value in its masks, from the facts of all cases."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from attunet.classes import IGNORE_LABEL, Classes
from attunet.decisions import Decision
from attunet.errors import InputError
from attunet.io.pictures.images import is_jpeg
from attunet.io.pictures.mask_colours import colour_name, common_indices, is_colour
from attunet.preparation.case_facts import CaseFacts
from attunet.sources.case_files import Source
from attunet.sources.labels.codings import classes_of_values, value_text
from attunet.sources.labels.grey_levels import (
    MAX_CLASS_GREYS,
    MAX_EDGE_SHARE,
    MIN_EDGE_GREYS,
    are_levels,
    find_levels,
    find_peak,
)

VOID = 255  # the value to ignore by convention of some data sets

Mappings = Mapping[str, Mapping[int, int]]  # for each labelled case, label value -> class index


@dataclass(frozen=True)
class ResolvedClasses:
    """Classes and codings of a data set."""

    source: Source  # with its grey levels
    classes: Classes
    mappings: Mappings  # the class index of the label values of each labelled case
    decisions: tuple[Decision, ...]  # interpretations of the masks that may differ from the user's


@dataclass(frozen=True)
class _Masks:
    """The facts of all cases with a mask, and the pixels of each label value in total and within regions."""

    facts: Sequence[CaseFacts]
    total: Counter[int]
    regions: Counter[int]

    @classmethod
    def of(cls, facts: Sequence[CaseFacts]) -> "_Masks":
        masks = [fact for fact in facts if fact.label_values is not None]
        total, regions = Counter[int](), Counter[int]()
        for fact in masks:
            total.update(fact.values)
            regions.update(fact.label_regions)
        return cls(masks, total, regions)

    @property
    def are_pictures(self) -> bool:
        return any(fact.unit == "pixel" for fact in self.facts)

    def total_of(self, new_value: Callable[[int], int]) -> Counter[int]:
        """The pixels of each label value after a change of the values."""
        total = Counter[int]()
        for value, count in self.total.items():
            total[new_value(value)] += count
        return total

    def mappings(self, index_of: Callable[[str, int], int], levels: Sequence[int] = ()) -> Mappings:
        """For each case the class index of its values and of the grey levels; `index_of` has a case and a value."""
        return {
            fact.case: {value: index_of(fact.case, value) for value in (*fact.values, *levels)} for fact in self.facts
        }


def resolve_classes(source: Source, facts: Sequence[CaseFacts]) -> ResolvedClasses:
    """Determine the classes, and the class index of each mask's label values. A mask may lack classes.

    If copies of a data set with different codings are mixed, the first coding is used. Without any coding, one is made
    from the values of all masks. Raises InputError if a value has no class, a mask has no class, or the masks do not
    show which value is the background.
    """
    masks = _Masks.of(facts)
    if source.codings:
        return _with_codings(source, masks)
    if not masks.facts:
        raise InputError(f"{source.root}: without masks the classes cannot be known; name them with --classes")
    indices = _palette_indices(masks)
    if indices is not None:
        return _with_palette(source, masks, indices)
    levels = _grey_levels(source, masks)
    source = replace(source, grey_levels=levels)
    total = masks.total_of(source.canonical)
    _check_background(source, total)
    _check_colours(source, total, masks.regions)
    classes = classes_of_values([*total, *levels], source.root)
    mappings = masks.mappings(lambda _, value: classes.values.index(source.canonical(value)), levels)
    return ResolvedClasses(source, classes, mappings, tuple(_decisions(total, levels)))


def _decisions(total: Mapping[int, int], levels: Sequence[int]) -> Iterator[Decision]:
    if levels:
        greys = ", ".join(map(str, levels))
        yield Decision("mask-greys", f"the greys {greys} are classes; those of smoothed edges join them")
    if colours := [colour_name(value) for value in sorted(total) if is_colour(value)]:
        yield Decision("mask-colours", f"a colour is a class, the same in all files: {', '.join(colours)}")
    others = [value for value in total if value not in (0, VOID)]
    if not levels and VOID in total and others and max(others) < VOID // 2:
        yield Decision("value-255", "255 is a class like the others, not a value to ignore")


def _check_colours(source: Source, total: Mapping[int, int], regions: Mapping[int, int]) -> None:
    """Refuse masks whose many colours come from smoothed edges."""
    colours = [value for value in sorted(total) if is_colour(value)]
    edges = [value for value in colours if not regions.get(value)]
    classes = [colour_name(value) for value in colours if regions.get(value)]
    few = sum(total[value] for value in edges) <= MAX_EDGE_SHARE * sum(total.values())
    if classes and len(edges) >= MIN_EDGE_GREYS and few:
        raise InputError(
            f"{source.root}: the masks have {len(edges)} colours that fill no region, as smoothed edges have, first "
            f"{colour_name(edges[0])}, beside {', '.join(classes[:5])}: save the masks without smoothing"
        )


def _grey_levels(source: Source, masks: _Masks) -> tuple[int, ...]:
    """The greys that are classes in masks with smoothed edges; empty for other masks."""
    lossy = bool(set(masks.total) - {0, 255}) and any(is_jpeg(path) for case in source.cases for path in case.labels)
    if not masks.are_pictures and not lossy:
        return ()
    levels = find_levels(masks.total, masks.regions, lossy=lossy)
    if lossy and not levels:
        raise InputError(
            f"{source.root}: masks as JPEG, which changes values, must have few greys that are far apart and fill "
            "regions; save them as PNG"
        )
    if levels and (peak := find_peak(masks.total, levels)) is not None:
        without = ",".join(f"NAME={level}" for level in levels[1:])
        raise InputError(
            f"{source.root}: the masks have a peak at grey {peak} between {', '.join(map(str, levels))}: a class, or "
            f"edges? Choose with --classes background={levels[0]},NAME={peak},{without} or --classes "
            f"background={levels[0]},{without}"
        )
    return levels


def _check_background(source: Source, total: Mapping[int, int]) -> None:
    """Refuse masks that do not show that 0 is the background."""

    def named(values: Iterable[int]) -> str:
        return ",".join(f"NAME={value_text(value)}" for value in sorted(values))

    commonest = max(total, key=lambda value: (total[value], -value))
    if commonest == 0:
        return
    background, share = value_text(commonest), total[commonest] / sum(total.values())
    text = "no mask has the value 0"
    if 0 in total:
        text = f"the commonest value of the masks is {background} ({share:.0%}), not 0"
    raise InputError(
        f"{source.root}: {text}, so nothing shows which is the background: give --classes "
        f"background={background},{named(set(total) - {commonest})} or --classes background=0,{named(set(total) - {0})}"
    )


def _with_codings(source: Source, masks: _Masks) -> ResolvedClasses:
    known = set(source.codings[0].values)
    if masks.are_pictures and {v for coding in source.codings for v in coding.values} <= set(range(256)):
        indices = _palette_indices(masks)
        if indices is not None and not set(masks.total) <= known:
            return _with_palette(source, masks, indices)
    source = _with_levels_of_user(source, masks)
    first_label = {case.case: case.labels[0] for case in source.labelled}
    codings = {fact.case: source.coding(fact.values, first_label[fact.case]) for fact in masks.facts}
    several = {codings[fact.case] for fact in masks.facts if len(fact.values) > 1}

    def index_of(case: str, value: int) -> int:
        canonical = source.canonical(value)
        return IGNORE_LABEL if canonical == source.ignored else codings[case].values.index(canonical)

    classes = several.pop() if len(several) == 1 else source.codings[0]
    return ResolvedClasses(source, classes, masks.mappings(index_of, source.grey_levels), ())


def _with_levels_of_user(source: Source, masks: _Masks) -> Source:
    """Set the values of the classes as the grey levels of the source if the edges of the masks are smoothed."""
    total, values = masks.total, source.codings[0].values
    unknown = set(total) - set(values) - {source.ignored}
    if len(source.codings) > 1 or source.grey_ranges or not unknown or not masks.are_pictures:
        return source
    in_range = min((*total, *values)) >= 0 and max((*total, *values)) <= 255
    smoothed = in_range and len(total) > MAX_CLASS_GREYS and are_levels(total, values)
    return replace(source, grey_levels=tuple(sorted(values))) if smoothed else source


def _palette_indices(masks: _Masks) -> dict[int, int] | None:
    """Return `{code: index}` if the palettes of all masks agree; None without palettes or if they differ."""
    if not any(fact.palette for fact in masks.facts):
        return None
    indices = common_indices({fact.case: fact.palette for fact in masks.facts})
    if indices is None or indices.get(0, 0) != 0:
        return None
    indices = {0: 0, **indices}
    return indices if set(masks.total) <= set(indices) else None


def _with_palette(source: Source, masks: _Masks, indices: Mapping[int, int]) -> ResolvedClasses:
    total = masks.total_of(indices.__getitem__)
    if source.codings:
        classes = source.codings[0]
    else:
        _check_background(source, total)
        classes = classes_of_values(total, source.root)
    if unknown := sorted(set(total) - set(classes.values) - {source.ignored}):
        raise InputError(
            f"{source.root}: label values must be among {', '.join(map(str, classes.values))}, got {unknown[0]}"
        )

    def index_of(_: str, code: int) -> int:
        return IGNORE_LABEL if indices[code] == source.ignored else classes.values.index(indices[code])

    reading = Decision("mask-colours", "all palettes agree, so their indices are the label values")
    return ResolvedClasses(source, classes, masks.mappings(index_of), (reading,))
