"""The slices of a store as nnU-Net's raw data."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from attunet.benchmarks.nnunet.raw_data import DATASET
from attunet.benchmarks.speed.training.nnunet import write_slices
from attunet.store import Store


def test_raw_data_are_the_stores_slices(small_store: Store, tmp_path: Path) -> None:
    write_slices(small_store, 1, tmp_path)
    raw = tmp_path / "raw" / DATASET
    training, held_out = small_store.split(1)
    split = json.loads((raw / "splits_final.json").read_text())
    assert len(split) == 1
    for names, cases in ((split[0]["train"], training), (split[0]["val"], held_out)):
        assert len(names) == len(cases) > 0
        for name, case in zip(names, cases, strict=True):
            image = nib.load(raw / "imagesTr" / f"{name}_0000.nii.gz").get_fdata().transpose(2, 1, 0)
            label = nib.load(raw / "labelsTr" / f"{name}.nii.gz").get_fdata().transpose(2, 1, 0)
            np.testing.assert_array_equal(image, small_store.image(case)[:, 0].astype(np.float32))
            np.testing.assert_array_equal(label, small_store.label(case))
    about = json.loads((raw / "dataset.json").read_text())
    assert about["numTraining"] == len(training) + len(held_out) == len(list((raw / "labelsTr").iterdir()))
    assert sorted(about["labels"].values()) == list(range(len(small_store.classes)))
