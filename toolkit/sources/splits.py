"""Folds by patient, never by slice: dealt by a hash of the patient, or read from a user's file."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from attunet.errors import InputError
from attunet.fields import is_text_list, read_json

SCHEMA = 1
FORM = '{"schema": 1, "folds": [["patient 1", "patient 2"], ["patient 3"]], "test": []}'


@dataclass(frozen=True)
class Splits:
    """Folds and test set."""

    folds: tuple[tuple[str, ...], ...]  # for each fold, the patients that it leaves out of training
    test: tuple[str, ...] = ()  # patients that no fold trains on or validates with
    seed: int = 0  # of the order in which patients were dealt

    def places(self) -> dict[str, int]:
        """Patient -> number of its fold; -1 for the test set."""
        return {patient: place for place, group in enumerate((self.test, *self.folds), -1) for patient in group}

    def renamed(self, names: Mapping[str, str]) -> "Splits":
        """The same folds with other names of the patients."""
        folds = tuple(tuple(names[patient] for patient in fold) for fold in self.folds)
        return replace(self, folds=folds, test=tuple(names[patient] for patient in self.test))

    def to_json(self) -> dict[str, object]:
        return {"schema": SCHEMA, "seed": self.seed, "folds": [list(f) for f in self.folds], "test": list(self.test)}


def deal_folds(
    patients: Iterable[str],
    num_folds: int,
    seed: int,
    together: Iterable[Collection[str]] = (),
    test: Collection[str] = (),
) -> Splits:
    """Deal patients to folds, in the order of sha256("seed:patient"), round robin.

    Args:
        patients: their names; the order makes no difference.
        num_folds: at most one fold per patient is made.
        together: groups of patients that are dealt as one, because they share scans; groups with a patient in common
            are one group. The order of and in the groups makes no difference.
        test: patients that go into the test set, and with them all of their groups.

    Example:
        >>> deal_folds(["a", "b", "c"], 2, seed=0, together=[("a", "b")]).folds
        (('a', 'b'), ('c',))
    """
    ordered = sorted(set(patients), key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).hexdigest())
    first_of = joined(ordered, together)
    groups: dict[str, list[str]] = {}
    for patient in ordered:
        groups.setdefault(first_of[patient], []).append(patient)
    tested = sorted(p for first in {first_of[patient] for patient in test} for p in groups.pop(first))
    dealt, count = list(groups.values()), min(num_folds, len(groups))
    folds = tuple(tuple(p for group in dealt[k::count] for p in group) for k in range(count))
    return Splits(folds, tuple(tested), seed)


def joined(patients: Iterable[str], together: Iterable[Collection[str]]) -> dict[str, str]:
    """Return for each patient the first, by name, of all that `together` joins it to, directly or through others.

    Not SciPy's DisjointSet, which takes minutes for a chain of 50,000.

    Example:
        >>> joined("abcd", [("b", "d"), ("a", "d", "elsewhere")])
        {'a': 'a', 'b': 'a', 'c': 'c', 'd': 'a'}
    """
    earlier = {patient: patient for patient in patients}

    def first(patient: str) -> str:
        while earlier[patient] != patient:
            earlier[patient] = earlier[earlier[patient]]  # shortens the way for the next
            patient = earlier[patient]
        return patient

    for shared in together:
        firsts = sorted(first(patient) for patient in shared if patient in earlier)
        earlier.update(dict.fromkeys(firsts, firsts[0]) if firsts else {})
    return {patient: first(patient) for patient in earlier}


def read_splits(path: Path, patients: Iterable[str] | None = None) -> Splits:
    """Read a splits file, as `Splits.to_json` describes it, in which each of `patients` must be in one fold or in the
    test set. Raises InputError if the file breaks a rule, which the message names.
    """
    try:
        at = read_json(path)
        at.require("schema", lambda v: v == SCHEMA and type(v) is int, str(SCHEMA))
        folds = at.require(
            "folds",
            lambda v: isinstance(v, list) and all(is_text_list(f) and f for f in v),
            "lists of patients, none empty",
        )
        test, seed = at.text_list("test") if "test" in at else [], at.whole("seed") if "seed" in at else 0
    except InputError as error:
        raise InputError(f"{error}; write it as {FORM}") from None
    listed = [p for group in (*folds, test) for p in group]
    if twice := sorted(patient for patient, number in Counter(listed).items() if number > 1):
        raise InputError(
            f"{path}: a patient must be in one fold or in the test set, {twice[0]!r} is listed twice: remove one"
        )
    if patients is not None and (odd := sorted(set(patients) ^ set(listed))):
        what = "is not a labelled patient of the source: remove it" if odd[0] in listed else "is not listed: add it"
        raise InputError(f"{path}: folds and test must list every labelled patient once, {odd[0]!r} {what}")
    return Splits(tuple(tuple(f) for f in folds), tuple(test), seed)
