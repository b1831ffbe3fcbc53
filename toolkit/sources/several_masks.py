"""Cases with several masks: objects of one class, or a class for each file."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from attunet.classes import Classes
from attunet.decisions import Decision, choice
from attunet.errors import InputError
from attunet.io.readers import stem_of
from attunet.sources.case_files import CaseFiles, Source
from attunet.sources.layouts.matching import MASK_WORD

USUAL_SHARE = 0.8  # a numbered name is an object if fewer of the cases with such names have it, else a class


def resolve_masks(source: Source, chosen: Sequence[str] = ()) -> Source:
    """Decide whether several masks of a case are classes or the objects of one mask.

    Numbered masks, and masks with names that no other case has, are objects. Names that recur are classes.

    Args:
        source: the cases as their layout gives them.
        chosen: parts of file names; other masks are left out.

    Returns:
        The source, with `label_values` and a coding if masks are classes; unchanged if its layout has set
        `label_values`.

    Raises:
        InputError: no mask has a chosen name, or the names of two masks of a case do not distinguish them.
    """
    if any(case.label_values for case in source.cases):
        return source  # the layout has set the values
    if chosen:
        cases = tuple(
            replace(case, labels=tuple(p for p in case.labels if _is_chosen(p, chosen))) for case in source.cases
        )
        if not any(case.labels for case in cases):
            raise InputError(f"{source.root}: no mask is named {' or '.join(chosen)} (--masks)")
        source = replace(source, cases=cases)
    several = [case for case in source.cases if len(case.labels) > 1]
    if not several:
        return source
    by_folder = all(len({path.parent for path in case.labels}) == len(case.labels) for case in several)
    names = _without_object_numbers({case.case: mask_names(case, by_folder) for case in source.cases if case.labels})
    recurring = Counter(name for case_names in names.values() for name in set(case_names) if name)
    classes = sorted(name for name, count in recurring.items() if count > 1 or len(names) == 1)
    for case in several:
        given = names[case.case]
        if not any(given) and not _are_numbered(case.labels):
            raise InputError(
                f"{case.labels[1]}: {case.case} has a second mask, "
                f"{case.labels[0].parent.name}/{case.labels[0].name}; choose one with --masks NAME"
            )
    unnamed = any("" in names[case.case] for case in several)
    if unnamed or not classes or sum(recurring[name] for name in classes) * 2 < sum(recurring.values()):
        text = f"mask files of a case are objects of one mask: {several[0].case} has {len(several[0].labels)}"
        return replace(source, decisions=(*source.decisions, Decision("mask-files", text)))
    values = {name: number for number, name in enumerate([*classes, *sorted(set(recurring) - set(classes))], 1)}
    coding = Classes(("background", *values), (0, *values.values()))
    cases = tuple(
        replace(case, label_values=tuple(values[name] for name in names[case.case])) if case.labels else case
        for case in source.cases
    )
    reading = Decision("mask-files", f"each mask file is a class by its name: {', '.join(values)}")
    source = replace(source, cases=cases, codings=(coding,), decisions=(*source.decisions, reading))
    return _with_missing_masks(source, names)


def _with_missing_masks(source: Source, names: Mapping[str, list[str]]) -> Source:
    """Mark a class as not drawn in cases without its mask file, unless the user says that it is empty there."""
    classes = source.codings[0].names[1:]
    missing = {case: [name for name in classes if name not in given] for case, given in names.items()}
    partial = [case for case, absent in missing.items() if absent]
    if not partial:
        return source
    empty = choice("missing-masks", source.choices) == "empty"
    count = (
        f"{len(partial)} of {len(names)} cases, {partial[0]} the first, have no file for a class "
        f"({', '.join(missing[partial[0]])})"
    )
    words = "it is empty there" if empty else "it was not drawn there"
    drawn = {} if empty else {case: tuple(name for name in classes if name in names[case]) for case in partial}
    cases = tuple(replace(case, drawn=drawn[case.case]) if case.case in drawn else case for case in source.cases)
    return replace(source, cases=cases, decisions=(*source.decisions, Decision("missing-masks", f"{count}: {words}")))


def _without_object_numbers(names: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Remove the numbers of objects from names: of tumour_1 in some cases, not of rib_left_1 in nearly every case."""
    cases: defaultdict[str, set[str]] = defaultdict(set)
    for case, given in names.items():
        for name in given:
            cases[name].add(case)
            cases[_base(name)].add(case)
    objects = {
        _base(name) for name in cases if len(cases[name]) < USUAL_SHARE * len(cases[_base(name)]) or len(names) == 1
    }
    return {case: [_base(name) if _base(name) in objects else name for name in given] for case, given in names.items()}


def _base(name: str) -> str:
    return re.sub(r"_?\d+$", "", name) if re.search(r"_\d+$", name) else name


def _is_chosen(path: Path, chosen: Sequence[str]) -> bool:
    return any(text.lower() in f"{path.parent.name}/{path.name}".lower() for text in chosen)


def _are_numbered(paths: Sequence[Path]) -> bool:
    """True for masks in one folder whose names differ in a number at the end."""
    return len({(path.parent, re.sub(r"[-_ .]?\d{1,3}$", "", stem_of(path))) for path in paths}) == 1


def mask_names(case: CaseFiles, by_folder: bool) -> list[str]:
    """Return the name of each mask of a case without the case's name, numbers and words for masks.

    Args:
        case: the case.
        by_folder: True uses the names of the masks' folders instead of the files.
    """
    if by_folder:
        return [_plain(path.parent.name, []) for path in case.labels]
    known = [stem_of(image) for image in case.images] + [case.patient, case.case]
    return [_plain(stem_of(path), known) for path in case.labels]


def _plain(name: str, known: Sequence[str]) -> str:
    for text in known:
        name = re.sub(rf"(^|(?<=[-_ .])){re.escape(text)}(?=$|[-_ .])", "", name)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # leftMask
    parts = [part for part in re.split(r"[-_ .]+", words) if part]
    text = "_".join(part for part in parts if not MASK_WORD.fullmatch(part))
    return text if re.search(r"[A-Za-z]", text) else ""
