"""Folds by patient, never by slice: dealt by a hash of the patient, or a user's own file."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attunet.errors import InputError

SCHEMA = 1


@dataclass(frozen=True)
class Splits:
    """folds: the patients that each fold leaves out of training; test: patients that no fold trains on or validates with."""

    folds: tuple[tuple[str, ...], ...]
    test: tuple[str, ...] = ()
    seed: int = 0

    def places(self) -> dict[str, int]:
        """Of every patient, the number of its fold; -1 for the test set."""
        return {patient: place for place, group in enumerate((self.test, *self.folds), -1) for patient in group}

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "seed": self.seed, "folds": [list(f) for f in self.folds], "test": list(self.test)}


def deal_folds(patients: Iterable[str], num_folds: int, seed: int, together: Iterable[Collection[str]] = ()) -> Splits:
    """Patients in the order of sha256("seed:patient"), dealt round robin; at most one fold per patient.

    together: groups of patients that are dealt as one, because they share scans; groups with a patient in common are one group.
    """
    ordered = sorted(set(patients), key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).hexdigest())
    groups = {patient: [patient] for patient in ordered}
    for shared in together:
        first, *others = (groups[patient] for patient in shared if patient in groups)
        for group in others:
            if group is not first:
                first.extend(group)
                groups.update(dict.fromkeys(group, first))
    dealt = [groups[patient] for patient in ordered if groups[patient][0] == patient]
    count = min(num_folds, len(dealt))
    return Splits(tuple(tuple(p for group in dealt[k::count] for p in group) for k in range(count)), seed=seed)


def read_splits(path: Path, patients: Iterable[str] | None = None) -> Splits:
    """A splits file. Raises InputError naming the file and the rule; with `patients`, each must be in one fold or in the test set."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise InputError(
            f'{path}: "schema" must be {SCHEMA}, got {data.get("schema") if isinstance(data, dict) else type(data).__name__!r}'
        )
    folds, test, seed = data.get("folds"), data.get("test", []), data.get("seed", 0)
    if not isinstance(folds, list) or not all(_is_names(f) and f for f in folds):
        raise InputError(f'{path}: "folds" must be a list of lists of patients, none of them empty')
    if not _is_names(test) or type(seed) is not int:
        raise InputError(f'{path}: "test" must be a list of patients and "seed" an integer')
    listed = [p for group in (*folds, test) for p in group]
    if twice := sorted(patient for patient, number in Counter(listed).items() if number > 1):
        raise InputError(f"{path}: a patient must be in one fold or in the test set, {twice[0]!r} is listed twice")
    if patients is not None and (odd := sorted(set(patients) ^ set(listed))):
        what = "is not listed" if odd[0] not in set(listed) else "is not a labelled patient of the source"
        raise InputError(f"{path}: folds and test must list every labelled patient once, {odd[0]!r} {what}")
    return Splits(tuple(tuple(f) for f in folds), tuple(test), seed)


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(p, str) for p in value)
