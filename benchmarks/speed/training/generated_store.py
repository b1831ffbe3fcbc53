"""Stores of any number of slices for measurements: a small prepared one, its cases repeated under other names."""

import itertools
import json
import shutil
from pathlib import Path

from attunet.config import DataConfig
from attunet.fields import Fields
from attunet.manifest import CASES, MANIFEST, SPLITS
from attunet.phantom import write_phantom
from attunet.preparation.prepare import prepare
from attunet.store import Store, open_store

FIELD_OF_VIEW_MM = 410.0  # of the generated cases, so that any size shows the whole body


def generated_store(folder: Path, size: int) -> Store:
    """A store of generated abdominal cases whose whole body is in slices of `size` × `size` pixels;
    fold 0 leaves out half of them.
    """
    write_phantom(folder / "source", cases=4)
    config = DataConfig(spacing_mm=FIELD_OF_VIEW_MM / size, size=size)
    return prepare(folder / "source", folder / "store", config, folds=2)


def repeated_store(store: Store, path: Path, num_slices: int) -> Store:
    """A store at `path` that trains on at least `num_slices` slices in fold 0:
    the shards of `store`, copied as often as it takes.

    Every copy is a file of its own, so that nothing is read from memory that a large data set would not have there.
    """
    entries = {entry.text("case"): entry.data for entry in Fields(store.manifest, MANIFEST).rows("cases")}
    training, held_out = store.split(0)
    repeated = ((case, f"{case}-{turn:05d}") for turn in itertools.count() for case in training)
    copies, count = [], 0
    while count < num_slices:
        copies.append(next(repeated))
        count += store.case(copies[-1][0]).num_slices
    (path / CASES).mkdir(parents=True)
    rows = []
    for case, name in [*copies, *zip(held_out, held_out, strict=True)]:
        shutil.copytree(store.path / CASES / case, path / CASES / name)
        rows.append(entries[case] | {"case": name, "patient": name})
    splits = {"schema": 1, "seed": 0, "folds": [held_out, [name for _, name in copies]], "test": []}
    (path / MANIFEST).write_text(json.dumps(store.manifest | {"cases": rows}), encoding="utf-8")
    (path / SPLITS).write_text(json.dumps(splits), encoding="utf-8")
    return open_store(path)
