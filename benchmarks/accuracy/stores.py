"""The stores of the folds, and the store of generated abdomens."""

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nibabel as nib

from attunet.benchmarks.accuracy.arms import FoldStore
from attunet.config import DataConfig
from attunet.errors import InputError
from attunet.manifest import CASES, MANIFEST, SPLITS
from attunet.phantom import generate_case
from attunet.preparation.prepare import prepare
from attunet.sources.splits import Splits
from attunet.store import Store
from attunet.system.atomic_files import write_text


def fold_stores(store: Store, out: Path, scans: int | None) -> list[FoldStore]:
    """Make a store for each fold, whose fold 0 has the held-out patients and fold 1 those to train on;
    its arrays are links.

    Args:
        store: with the labelled cases.
        out: folder of the new stores.
        scans: patients to train on: fold k trains on the k-th and those after it; None for all but the k-th.

    Raises:
        InputError: there are no more patients than `scans`.
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
            if not (path / name).exists():
                (path / name).symlink_to((store.path / name).resolve())
        write_text(path / SPLITS, json.dumps(Splits((tuple(held_out), tuple(training))).to_json()))
        slices = sum(case.num_slices for case in store.cases if case.labelled and case.patient in training)
        folds.append(FoldStore(path, slices))
    return folds


def make_generated_store(store: Path, config: DataConfig, *, cases: int, processes: int, reduce: int) -> None:
    """Generate abdomens and prepare them as the real scans are.

    Args:
        store: the new store; its source lies beside it.
        config: `[data]` of the real store.
        cases: number of abdomens.
        processes: that generate.
        reduce: divides the pixels in plane, for quick tests.

    Example:
        >>> make_generated_store(Path("abdomens"), store.data_config, cases=64, processes=8, reduce=1)  # doctest: +SKIP
    """
    source = store.with_name(store.name + "-source")
    source.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(_write_case, range(cases), [source] * cases, [reduce] * cases))
    prepare(source, store, config)


def _write_case(number: int, source: Path, reduce: int) -> None:
    case = generate_case(0, number, reduce=reduce)
    for array, kind in ((case.image, "src"), (case.labels, "mask")):
        image = nib.Nifti1Image(array, case.affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(case.affine, code=1)
        image.set_qform(case.affine, code=1)
        nib.save(image, source / f"{number:03d}-T2SPIR-{kind}.nii")
