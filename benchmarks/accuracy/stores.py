"""The stores of the folds, and the store of generated abdomens."""

import json
from pathlib import Path

from attunet.benchmarks.accuracy.arms import FoldStore
from attunet.config import DataConfig
from attunet.errors import InputError
from attunet.manifest import CASES, MANIFEST, SPLITS
from attunet.phantom import write_phantom
from attunet.preparation.prepare import prepare
from attunet.sources.splits import Splits
from attunet.store import Store
from attunet.system.atomic_files import write_text

GENERATED_CASES = 128


def fold_stores(store: Store, out: Path, scans: int | None) -> list[FoldStore]:
    """Make a store in `out` for each fold, whose fold 0 has the held-out patients and fold 1 those to train on; its
    arrays are links. Raises InputError where there are no more patients than `scans`.

    Args:
        scans: patients to train on: fold k trains on the k-th and those after it; None for all but the k-th.
    """
    patients = sorted({case.patient for case in store.cases if case.labelled})
    if len(patients) <= (scans or 1):
        raise InputError(f"{store.path}: must have more than {scans or 1} labelled patients, it has {len(patients)}")
    folds = []
    for number in range(len(patients)):
        turned = patients[number:] + patients[:number]
        training, held_out = (turned[:scans], turned[scans:]) if scans is not None else (turned[1:], turned[:1])
        path = out / f"{scans or 'all'}-scans" / f"fold-{number}"
        path.mkdir(parents=True, exist_ok=True)
        for name in (MANIFEST, CASES):
            (path / name).unlink(missing_ok=True)  # of an earlier call, before the store was moved
            (path / name).symlink_to((store.path / name).resolve())
        write_text(path / SPLITS, json.dumps(Splits((tuple(held_out), tuple(training))).to_json()))
        slices = sum(case.num_slices for case in store.cases if case.labelled and case.patient in training)
        folds.append(FoldStore(path, slices))
    return folds


def generated_store(path: Path, config: DataConfig) -> Path:
    """Makes the store of generated abdomens, prepared as the real scans are."""
    source = path.with_name(f"{path.name}-source")
    if not source.exists():
        write_phantom(source, cases=GENERATED_CASES)
    return prepare(source, path, config).path
