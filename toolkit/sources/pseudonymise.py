"""A source whose cases and patients have numbers instead of names."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from attunet.decisions import Decision
from attunet.errors import InputError
from attunet.sources.case_files import Source, regular_files
from attunet.sources.find_cases import SourceOptions, find_cases
from attunet.sources.inputs import Input
from attunet.system.pseudonyms import Pseudonyms


def find_named_cases(root: Path, options: SourceOptions, names: Pseudonyms) -> Source:
    """Find the cases of a source with their names; after the call, `names` hides these names and those of the files.

    Raises:
        InputError: as `find_cases` does, without the names of files in the message.
    """
    if not root.is_dir():
        raise InputError(f"{root}: must be a folder of cases")
    remember_files(regular_files(root), root, names)
    try:
        source = find_cases(root, options)
    except InputError:
        raise InputError(
            f"{root}: its files cannot be taken as cases; `attunet inspect` on it says why, with their names"
        ) from None
    numbers = names.numbers_of(name for case in source.cases for name in (case.case, case.patient))
    names.remember(numbers)
    for case in source.cases:
        remember_files((*case.images, *case.labels), root, names, numbers[case.case])
    return source


def remember_files(files: Iterable[Path], root: Path, names: Pseudonyms, number: str | None = None) -> None:
    """Hide the names of files in all output.

    Args:
        files: files below the source.
        root: the source.
        names: table to which the names are added.
        number: number of the case to which the files belong; None for files of no case.
    """
    for path in files:
        names.remember_file(path, root, *([number] if number else []))


def pseudonymised(source: Source, names: Pseudonyms) -> Source:
    """Replace the names of cases and patients by numbers, in decisions and notes too; files keep their paths."""
    numbers = names.numbers_of(name for case in source.cases for name in (case.case, case.patient))
    names.remember(numbers)
    cases = [replace(case, case=numbers[case.case], patient=numbers[case.patient]) for case in source.cases]
    return replace(
        source,
        cases=tuple(sorted(cases, key=lambda case: case.case)),
        test_patients=frozenset(numbers[patient] for patient in source.test_patients),
        reason=names.hide(source.reason),
        decisions=tuple(Decision(one.rule, names.hide(one.text)) for one in source.decisions),
        notes=tuple(names.hide(note) for note in source.notes),
    )


def numbered_inputs(inputs: Sequence[Input], root: Path, names: Pseudonyms) -> list[Input]:
    """Replace the names of volumes by numbers; after the call, `names` hides them and those of files below `root`."""
    remember_files(regular_files(root) if len(inputs) > 1 else [], root, names)
    numbers = names.numbers_of(one.name for one in inputs)
    for one in inputs:
        names.remember({one.name: numbers[one.name], one.name.rpartition("/")[2]: numbers[one.name]})
        remember_files(one.files, root, names, numbers[one.name])
    return [replace(one, name=numbers[one.name]) for one in inputs]
