"""attunet and nnU-Net on one fold: both are trained for the same minutes and judged alike."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from attunet.benchmarks.accuracy import nnunet
from attunet.benchmarks.nnunet.raw_data import DATASET, write_raw
from attunet.errors import InputError
from attunet.store import Store

SHORT = {"fold": 0, "minutes": 0.5, "device": "cpu", "settings": ("model.base_width=4", "model.depth=2")}


def test_nothing_is_trained_where_it_is_not_installed(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nnunetv2", None)
    with pytest.raises(InputError, match=r"^nnunetv2 is not installed \(pip install nnunetv2\)$"):
        nnunet.compare(small_store, tmp_path, **SHORT)
    assert not list(tmp_path.iterdir())


def test_a_training_of_other_minutes_is_not_taken(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on keeps its own minutes, whatever the call says."""
    monkeypatch.setattr(nnunet, "find_spec", lambda _: True)
    for name in ("train", "load_model"):
        monkeypatch.setattr(nnunet, name, lambda *_, **__: None)
    monkeypatch.setattr(nnunet, "judge", lambda *_: [])
    monkeypatch.setattr(nnunet, "_nnunet", lambda *_: ({}, None))
    assert nnunet.compare(small_store, tmp_path, **SHORT)["minutes"] == 0.5
    with pytest.raises(InputError, match="was made with other minutes; name another folder or remove it"):
        nnunet.compare(small_store, tmp_path, **{**SHORT, "minutes": 1.0})


@pytest.mark.slow
@pytest.mark.skipif(find_spec("nnunetv2") is None, reason="nnunetv2 is not installed")
def test_both_are_judged_on_the_cases_left_out(small_store: Store, tmp_path: Path) -> None:
    results = nnunet.compare(small_store, tmp_path, **SHORT)
    held_out = small_store.split(0)[1]
    assert [row["case"] for row in results["rows"]] == held_out * 2
    assert [row["arm"] for row in results["rows"]] == ["attunet"] * len(held_out) + ["nnU-Net 2D"] * len(held_out)
    for row in results["rows"]:
        assert list(row["dice"]) == list(small_store.classes.foreground)
        assert 0 <= row["mean"] <= 1
    assert 1 <= results["nnunet"]["epochs"] <= results["nnunet"]["planned_epochs"]
    assert len(nnunet.table(results).splitlines()) >= 1 + 2 * len(held_out)
    assert "Epoch 0" in (tmp_path / "nnunet-fold0.log").read_text()


@pytest.mark.skipif(find_spec("nnunetv2") is None, reason="nnunetv2 is not installed")
def test_its_reader_gives_the_axes_that_predictions_are_turned_back_from(tmp_path: Path) -> None:
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    image = np.arange(2 * 3 * 4, dtype=np.float32).reshape(1, 2, 3, 4)
    oriented = np.array([[0, -2, 0, 5], [1.5, 0, 0, -7], [0, 0, -4, 3], [0, 0, 0, 1.0]])
    label = (image[0] > 9).astype(np.uint8)
    write_raw(tmp_path, (["a"], []), lambda case: (image, label, oriented), num_classes=2, channels=["MR"])
    raw = tmp_path / "raw" / DATASET
    read, properties = SimpleITKIO().read_images([str(raw / "imagesTr" / "case00000_0000.nii.gz")])
    np.testing.assert_array_equal(read[0].transpose(2, 1, 0), image[0])
    np.testing.assert_allclose(properties["spacing"], [4, 2, 1.5])
    read_label, _ = SimpleITKIO().read_seg(str(raw / "labelsTr" / "case00000.nii.gz"))
    np.testing.assert_array_equal(read_label[0].transpose(2, 1, 0), label)
