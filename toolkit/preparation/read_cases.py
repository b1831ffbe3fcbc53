"""The cases of a source as the user wants them: with the own splits, the drawn classes, and numbers for names."""

import re
from dataclasses import replace
from pathlib import Path

from attunet.errors import InputError
from attunet.privacy.pseudonyms import Pseudonyms
from attunet.sources.case_files import CaseFiles, Source, SourceOptions, without_names
from attunet.sources.find_cases import find_cases
from attunet.sources.labels.labelled import read_labelled, with_labelled
from attunet.sources.pseudonymise import find_named_cases, pseudonymised
from attunet.sources.splits import Splits, read_splits

UNLABELLED_PART = re.compile(r"(?i)(^|[-_ ])(test|testing|val|valid|validation)|validationdata|testdata")
OF_USER = "does not fit the cases; the same call without --pseudonymise says why, with their names"


def read_cases(
    root: Path,
    options: SourceOptions,
    names: Pseudonyms | None,
    splits_file: Path | None,
    labelled_file: Path | None,
    *,
    allow_unlabelled: bool,
) -> tuple[Source, Splits | None]:
    """Read the cases below `root`, and the user's own folds; with `names`, cases and patients get numbers. Other
    arguments are as for `prepare`.

    Raises InputError if the files make no cases, an image has no mask, or a file of the user does not fit the cases.

    Example:
        read_cases(Path("cases"), DEFAULTS, None, None, None, allow_unlabelled=False)
    """
    source = find_named_cases(root, options, names) if names else find_cases(root, options)
    if not allow_unlabelled:
        source = _without_unlabelled_part(source)
        if without := [case for case in source.cases if not case.labels]:
            count = f"{len(without)} of {len(source.cases)} images have none"
            raise InputError(f"{without[0].images[0]}: has no mask ({count}; allow with --allow-unlabelled)")
    if labelled_file:
        with without_names(labelled_file, names is not None, OF_USER):
            source = with_labelled(source, read_labelled(labelled_file), labelled_file)
    splits = None
    if splits_file:
        with without_names(splits_file, names is not None, OF_USER):
            source = _with_patients_of(splits_file, source)
            splits = read_splits(splits_file, {case.patient for case in source.labelled})
    if names:
        splits = splits.renamed(names.numbers_of(splits.places())) if splits else None
        source = pseudonymised(source, names)
    return source, splits


def _without_unlabelled_part(source: Source) -> Source:
    """Leave out a test or validation part of which no image has a mask."""
    labelled = {folder for case in source.labelled for folder in case.images[0].parents}

    def is_in_part(case: CaseFiles) -> bool:
        folders = [folder.name for folder in case.images[0].parents if folder not in labelled]
        return not case.labels and any(map(UNLABELLED_PART.search, folders))

    part = [case for case in source.cases if is_in_part(case)]
    if not 0 < len(part) < len(source.cases):
        return source
    count = f"{len(part)} of {len(source.cases)} images lie in a part without masks and are left out"
    cases = tuple(case for case in source.cases if not is_in_part(case))
    return replace(source, cases=cases).with_decision("unlabelled-part", f"{count}, first {part[0].images[0].name}")


def _with_patients_of(splits_file: Path, source: Source) -> Source:
    """Make every case a patient of its own if the user's splits list cases instead of patients."""
    if set(read_splits(splits_file).places()) == {case.case for case in source.labelled}:
        source = replace(source, cases=tuple(replace(case, patient=case.case) for case in source.cases))
    return replace(source, patients_given=True)
