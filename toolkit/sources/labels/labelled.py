"""Partially labelled cases: the classes that were drawn in each of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from attunet.errors import InputError
from attunet.fields import read_json
from attunet.sources.case_files import Source


def read_labelled(path: str | Path) -> dict[str, list[str]]:
    """Read a file `{"CASE": ["CLASS", ...]}` of `--labelled`; cases that it does not name have all classes drawn."""
    at = read_json(path)
    return {case: at.text_list(case) for case in at.data}


def with_labelled(source: Source, labelled: Mapping[str, Sequence[str]], where: str | Path) -> Source:
    """Set the names of the classes that were drawn in some cases. Raises InputError if a case is unknown or has no
    mask; the message begins with `where`, the file.
    """
    masks = sorted(case.case for case in source.labelled)
    if unknown := sorted(set(labelled) - set(masks)):
        raise InputError(
            f"{where}: {unknown[0]!r} is no case with a mask; cases are called like {', '.join(masks[:3])}"
        )
    cases = tuple(replace(c, drawn=tuple(labelled[c.case])) if c.case in labelled else c for c in source.cases)
    return replace(source, cases=cases)


def check_drawn(source: Source, classes: Sequence[str], present: Mapping[str, Collection[int]]) -> None:
    """Check the drawn classes against the names of all classes and the indices of those in each mask. Raises InputError
    if a name is no class, or a mask has pixels of a class that its case does not list.
    """
    for case in source.cases:
        if case.drawn is None:
            continue
        if unknown := [name for name in case.drawn if name not in classes[1:]]:
            raise InputError(f"{case.case}: drawn classes must be of {', '.join(classes[1:])}, got {unknown[0]!r}")
        in_mask = {classes[index] for index in present.get(case.case, ()) if 0 < index < len(classes)}
        if hidden := sorted(in_mask - set(case.drawn)):
            raise InputError(
                f"{case.labels[0]}: has pixels of {hidden[0]!r}, which is not listed as drawn in {case.case}"
            )
