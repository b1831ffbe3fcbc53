"""Cases with several masks: objects of one class, or a class for each file."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from attunet.classes import Classes
from attunet.decisions import choice
from attunet.errors import InputError
from attunet.io.readers import stem_of
from attunet.sources.case_files import CaseFiles, Source
from attunet.sources.layouts.matching import MASK_WORD, names_one_of

USUAL_SHARE = 0.8  # a numbered name is an object if fewer of the cases with such names have it, else a class


def resolve_masks(source: Source, chosen: Sequence[str] = ()) -> Source:
    """Decide whether several masks of a case are classes or the objects of one mask.

    Numbered masks, and masks with names that no other case has, are objects. Names that recur are classes.

    If masks are classes, the cases get `label_values` and the source a coding; a source whose layout has set them is
    unchanged. Masks without one of the `chosen` parts in their names are left out. Raises InputError if no mask has
    such a name, or the names of two masks of a case do not distinguish them.
    """
    if any(case.label_values for case in source.cases):
        return source  # the layout has set the values
    if chosen:
        source = _with_chosen(source, chosen)
    several = [case for case in source.cases if len(case.labels) > 1]
    if not several:
        return source
    by_folder = all(len({path.parent for path in case.labels}) == len(case.labels) for case in several)
    names = _without_object_numbers({case.case: _mask_names(case, by_folder) for case in source.labelled})
    recurring = Counter(name for case_names in names.values() for name in set(case_names) if name)
    classes = sorted(name for name, count in recurring.items() if count > 1 or len(names) == 1)
    for case in several:
        if not any(names[case.case]) and not _are_numbered(case.labels):
            first, second, *_ = case.labels
            raise InputError(
                f"{second}: {case.case} has a second mask, {first.parent.name}/{first.name}; choose one with --masks "
                "NAME"
            )
    unnamed = any("" in names[case.case] for case in several)
    if unnamed or not classes or sum(recurring[name] for name in classes) * 2 < recurring.total():
        text = f"mask files of a case are objects of one mask: {several[0].case} has {len(several[0].labels)}"
        return source.with_decision("mask-files", text)
    values = {name: number for number, name in enumerate([*classes, *sorted(set(recurring) - set(classes))], 1)}
    if nameless := [case.labels[0] for case in source.labelled if "" in names[case.case]]:
        raise InputError(
            f"{nameless[0]}: the name of a mask must say which class it is, as in other cases ({', '.join(values)}): "
            "rename it, or choose masks with --masks NAME,..."
        )
    cases = tuple(
        replace(case, label_values=tuple(values[name] for name in names.get(case.case, ()))) for case in source.cases
    )
    source = replace(source, cases=cases, codings=(Classes(("background", *values), (0, *values.values())),))
    text = f"each mask file is a class by its name: {', '.join(values)}"
    return _with_missing_masks(source.with_decision("mask-files", text), names)


def _with_chosen(source: Source, chosen: Sequence[str]) -> Source:
    def is_chosen(path: Path) -> bool:
        return names_one_of(chosen, f"{path.parent.name}/{path.name}")

    cases = tuple(replace(case, labels=tuple(filter(is_chosen, case.labels))) for case in source.cases)
    if not any(case.labels for case in cases):
        raise InputError(f"{source.root}: no mask is named {' or '.join(chosen)} (--masks)")
    return replace(source, cases=cases)


def _with_missing_masks(source: Source, names: Mapping[str, list[str]]) -> Source:
    """Mark a class as not drawn in cases without its mask file, unless the user says that it is empty there."""
    classes = source.codings[0].names[1:]
    partial = [case for case, given in names.items() if not set(classes) <= set(given)]
    if not partial:
        return source
    missing = ", ".join(name for name in classes if name not in names[partial[0]])
    text = f"{len(partial)} of {len(names)} cases, {partial[0]} the first, have no file for a class ({missing})"
    if choice("missing-masks", source.choices) == "empty":
        return source.with_decision("missing-masks", f"{text}: it is empty there")
    drawn = {case: tuple(name for name in classes if name in names[case]) for case in partial}
    cases = tuple(replace(case, drawn=drawn.get(case.case, case.drawn)) for case in source.cases)
    return replace(source, cases=cases).with_decision("missing-masks", f"{text}: it was not drawn there")


def _without_object_numbers(names: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Remove the numbers of objects from names: of tumour_1 in some cases, not of rib_left_1 in nearly every case."""
    cases: defaultdict[str, set[str]] = defaultdict(set)
    for case, given in names.items():
        for name in given:
            cases[name].add(case)
            cases[_base(name)].add(case)
    having = {name: len(having) for name, having in cases.items()}
    objects = {
        _base(name) for name in having if having[name] < USUAL_SHARE * having.get(_base(name), 0) or len(names) == 1
    }
    return {case: [_base(name) if _base(name) in objects else name for name in given] for case, given in names.items()}


def _base(name: str) -> str:
    return re.sub(r"_\d+$", "", name)


def _are_numbered(paths: Sequence[Path]) -> bool:
    """True for masks in one folder whose names differ in a number at the end."""
    return len({(path.parent, re.sub(r"[-_ .]?\d{1,3}$", "", stem_of(path))) for path in paths}) == 1


def _mask_names(case: CaseFiles, by_folder: bool) -> list[str]:
    """Names of a case's masks, or of their folders, without the case's name, numbers and words for masks."""
    if by_folder:
        return [_plain(path.parent.name, []) for path in case.labels]
    known = [*map(stem_of, case.images), case.patient, case.case]
    return [_plain(stem_of(path), known) for path in case.labels]


def _plain(name: str, known: Sequence[str]) -> str:
    for text in known:
        name = re.sub(rf"(^|(?<=[-_ .])){re.escape(text)}(?=$|[-_ .])", "", name)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # leftMask
    text = "_".join(part for part in re.split(r"[-_ .]+", words) if part and not MASK_WORD.fullmatch(part))
    return text if re.search(r"[A-Za-z]", text) else ""
