"""The facts of every case that was looked at, kept while a store is built, so that a killed call does not look at it again."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from attunet.preparation.case_facts import CaseFacts, case_hashes, scan_case
from attunet.sources.case_files import CaseFiles, Source
from attunet.system.atomic_files import name_in_errors
from attunet.system.workers import over_cases

SCANNED_BY = 4  # raised when the same files would give other facts
FACTS = "facts.jsonl"

Task = tuple[CaseFiles, CaseFacts | None]


def scan_cases(found: Source, building: Path | None) -> Iterator[CaseFacts]:
    """The facts of every case, in the order of the source's cases; in `building` (None: nowhere) they are kept as they come.

    What an earlier call kept counts where the files still have the same SHA-256. Raises InputError as `scan_case` does.
    """
    if building is None:
        yield from over_cases(partial(scan_case, frames=found.frames), found.cases)
        return
    building.mkdir(parents=True, exist_ok=True)
    path = building / FACTS
    known = _read(path, _header(found))
    tasks: list[Task] = [(files, known.get(files.case)) for files in found.cases]
    with path.open("a" if known else "w", encoding="utf-8") as file:
        keep = partial(print, file=file, flush=True)
        with name_in_errors(path):
            keep("" if known else _header(found))  # an empty line, since the last one may have no end
        for (_, before), now in zip(tasks, over_cases(partial(_scan, frames=found.frames), tasks), strict=True):
            if now is not None:
                with name_in_errors(path):
                    keep(json.dumps(now.to_json(), allow_nan=False))
            facts = now or before
            assert facts is not None
            yield facts


def _scan(task: Task, *, frames: bool) -> CaseFacts | None:
    """The facts of a case, None where those that are known still hold."""
    files, known = task
    if known is not None and case_hashes(files) == (known.image_sha256, known.label_sha256):
        return None
    return scan_case(files, frames=frames)


def _header(found: Source) -> str:
    return json.dumps({"scanned_by": SCANNED_BY, "frames": found.frames})


def _read(path: Path, header: str) -> dict[str, CaseFacts]:
    """By case; the line at which a call was killed may be cut short and counts for nothing."""
    known: dict[str, CaseFacts] = {}
    if not path.is_file():
        return known
    with path.open(encoding="utf-8") as file:
        if file.readline().rstrip("\n") != header:
            return known
        for line in file:
            try:
                facts = CaseFacts.from_json(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue
            known[facts.case] = facts
    return known
