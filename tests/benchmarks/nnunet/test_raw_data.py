"""nnU-Net's raw data."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.benchmarks.nnunet.raw_data import DATASET, image_files, write_raw
from attunet.classes import IGNORE_LABEL


@pytest.mark.parametrize("ignored", [False, True])
def test_values_to_ignore_are_its_last_label(ignored: bool, tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(2, 4, 3, 2)).astype(np.float32)
    label = np.zeros((4, 3, 2), np.uint8)
    label[0], label[1] = 2, IGNORE_LABEL if ignored else 1
    names = write_raw(
        tmp_path, (["a"], []), lambda case: (image, label, np.eye(4)), num_classes=3, channels=["CT", "MR"]
    )
    raw = tmp_path / "raw" / DATASET
    about = json.loads((raw / "dataset.json").read_text())
    assert about["channel_names"] == {"0": "CT", "1": "MR"}
    assert about["labels"] == {"background": 0, "class 1": 1, "class 2": 2} | ({"ignore": 3} if ignored else {})
    written = nib.load(raw / "labelsTr" / f"{names['a']}.nii.gz").get_fdata()
    np.testing.assert_array_equal(written, np.where(label == IGNORE_LABEL, 3, label))
    for file, channel in zip(image_files(tmp_path, names["a"], 2), image, strict=True):
        np.testing.assert_array_equal(nib.load(file).get_fdata(dtype=np.float32), channel)
