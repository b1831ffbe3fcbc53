"""Cache of the facts of scanned cases while a store is built, so that a call after a kill does not scan them again."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from attunet.decisions import Choices
from attunet.errors import InputError
from attunet.fields import parse_json
from attunet.preparation.case_facts import CaseFacts
from attunet.preparation.scan_case import case_hashes, scan_case
from attunet.sources.case_files import CaseFiles, Source
from attunet.system.atomic_files import name_in_errors
from attunet.system.workers import over_cases

SCANNED_BY = 10  # version of the scan; increase it when the same files would give other facts
FACTS = "facts.jsonl"

Task = tuple[CaseFiles, CaseFacts | None]


def scan_cases(source: Source, building: Path) -> Iterator[CaseFacts]:
    """Yield the facts of every case, in the order of the source's cases; raises InputError if one cannot be read.

    The facts are stored in the folder `building` one by one. Those of an earlier call are used if the files still have
    the same SHA-256 and the mask files stand for the same values. Cases with a patient's identifier are scanned again.
    """
    building.mkdir(parents=True, exist_ok=True)
    path = building / FACTS
    mask_values = sorted({case.label_values for case in source.cases})
    has_names = not any(case.hidden for case in source.cases)  # facts with names do not stay beside those without
    scan = {"scanned_by": SCANNED_BY, "choices": dict(source.choices), "mask_values": mask_values}
    header = json.dumps({**scan, "has_names": has_names})
    known = _read(path, header)
    tasks: list[Task] = [(files, known.get(files.case)) for files in source.cases]
    with name_in_errors(path), path.open("a" if known else "w", encoding="utf-8") as file:
        keep = partial(print, file=file, flush=True)
        keep("" if known else header)  # terminate a line cut short by a kill
        for (_, before), now in zip(tasks, over_cases(partial(_scan, choices=source.choices), tasks), strict=True):
            if now is not None and now.patient_hash is None:  # a hash of an identifier of few digits would tell it
                keep(json.dumps(asdict(now), allow_nan=False))
            facts = now or before
            assert facts is not None
            yield facts


def scan_readable_cases(source: Source, on_error: Callable[[InputError], object]) -> Iterator[CaseFacts]:
    """Yield the facts of the cases that can be read, stored nowhere; `on_error` gets the errors of the others."""
    for result in over_cases(partial(_scan_or_error, choices=source.choices), source.cases):
        if isinstance(result, CaseFacts):
            yield result
        else:
            on_error(result)


def _scan_or_error(files: CaseFiles, *, choices: Choices) -> CaseFacts | InputError:
    try:
        return scan_case(files, choices=choices)
    except InputError as error:
        return error


def _scan(task: Task, *, choices: Choices) -> CaseFacts | None:
    """Scan a case; None if its stored facts are still valid."""
    files, known = task
    is_valid = (
        known is not None
        and case_hashes(files) == (known.image_sha256, known.label_sha256)
        and (not files.label_values or known.values.keys() <= {0, *files.label_values})
    )
    return None if is_valid else scan_case(files, choices=choices)


def _read(path: Path, header: str) -> dict[str, CaseFacts]:
    """Read the facts by case, ignoring a line that a kill cut short."""
    known: dict[str, CaseFacts] = {}
    if not path.is_file():
        return known
    with path.open(encoding="utf-8") as file:
        if file.readline().rstrip("\n") != header:
            return known
        for line in file:
            try:
                facts = CaseFacts.from_json(parse_json(line))
            except (ValueError, TypeError, AttributeError):
                continue
            known[facts.case] = facts
    return known
