"""A source whose cases and patients have numbers instead of names."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePath

from attunet.decisions import RULES, Decision
from attunet.errors import InputError
from attunet.privacy.pseudonyms import Pseudonyms
from attunet.sources.case_files import Source, SourceOptions, regular_files, without_names
from attunet.sources.case_of_scan import cases_of
from attunet.sources.find_cases import find_cases
from attunet.sources.input import Input

NOT_SHOWN = "not shown, for the names in it; attunet inspect shows it"


def find_named_cases(root: Path, options: SourceOptions, names: Pseudonyms) -> Source:
    """Find the cases of a source with their names; after the call, `names` hides these names and those of the files.
    Raises InputError as `find_cases` does, without the names of files in the message.
    """
    if not root.is_dir():
        raise InputError(f"{root}: must be a folder of cases")
    words = "its files cannot be taken as cases; `attunet inspect` on it says why, with their names"
    with without_names(root, True, words):
        for path in regular_files(root):
            names.remember_file(path, root)
        source = find_cases(root, options)
    numbers = _numbers(source, names)
    for case in source.cases:
        for path in (*case.images, *case.labels):
            names.remember_file(path, root, numbers[case.case])
    return source


def _numbers(source: Source, names: Pseudonyms) -> dict[str, str]:
    """The numbers of all cases and patients."""
    return names.numbers_of(name for case in source.cases for name in (case.case, case.patient))


def pseudonymised(source: Source, names: Pseudonyms) -> Source:
    """Replace the names of cases and patients by numbers; files keep their paths.

    Lines about the source are made of names of files and folders in many forms, so that none of them is kept: of a
    decision, the rule; of notes, their number.
    """
    numbers = _numbers(source, names)
    paths = [path for case in source.cases for path in case.images]
    count = len(source.notes)
    cases = [
        replace(case, case=numbers[case.case], patient=numbers[case.patient], hidden=True) for case in source.cases
    ]
    return replace(
        source,
        cases=tuple(sorted(cases, key=lambda case: case.case)),
        test_patients=frozenset(numbers[patient] for patient in source.test_patients),
        reason="by the names of its files",
        decisions=tuple(Decision(one.rule, f"{RULES[one.rule].question}: {NOT_SHOWN}") for one in source.decisions),
        notes=(f"{count} line(s) about its files: {NOT_SHOWN}",) if count else (),
        channels=unless_in_paths(source.channels, paths),
    )


def unless_in_paths(channels: tuple[str, ...], paths: Iterable[PurePath]) -> tuple[str, ...]:
    """Names of channels; none if one is part of a file's name, where a patient's name may be."""
    parts = {part for path in paths for part in path.parts}
    return () if any(word in part for name in channels for word in name.split("/") for part in parts) else channels


def numbered_inputs(inputs: Sequence[Input], root: Path, names: Pseudonyms) -> list[Input]:
    """Replace the names of volumes by the numbers of their cases; after the call, `names` hides them and those of files
    below `root`. Volumes whose files tell the same case have numbers of their own names.
    """
    folders = [root] if len(inputs) > 1 else [path for one in inputs for path in one.files if path.is_dir()]
    for path in chain.from_iterable(map(regular_files, folders)):
        names.remember_file(path, root)
    cases = cases_of(inputs, root)
    numbers = names.numbers_of(cases)
    for one, case in zip(inputs, cases, strict=True):
        names.remember(dict.fromkeys([case, one.name, one.name.rpartition("/")[2]], numbers[case]))
        for path in one.files:
            names.remember_file(path, root, numbers[case])
    return [replace(one, name=numbers[case], hidden=True) for one, case in zip(inputs, cases, strict=True)]
