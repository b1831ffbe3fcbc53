"""Arrays of a store that were changed are named before anything relies on them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from attunet.config import AugmentConfig, DataConfig
from attunet.errors import InputError
from attunet.launch.commands.inspect import describe
from attunet.plots.augmented import draw_augmented
from attunet.preparation.prepare import prepare
from attunet.sources.case_files import SourceOptions
from attunet.store import Store, open_store
from attunet.store_damage import check_sizes, verify_case


@pytest.fixture
def copied(small_store: Store, tmp_path: Path) -> Path:
    shutil.copytree(small_store.path, tmp_path / "store")
    return tmp_path / "store"


def test_more_slices_than_the_arrays_hold_are_refused_before_they_are_read(copied: Path) -> None:
    check_sizes(open_store(copied), ["01-T2SPIR", "02-T2SPIR"])
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["cases"][1]["num_slices"] = 2**40
    (copied / "manifest.json").write_text(json.dumps(manifest))
    store = open_store(copied)
    check_sizes(store, ["01-T2SPIR"])
    with pytest.raises(InputError, match=r"image\.npy: must have [0-9,]+ bytes for the 1,099,511,627,776 slices that"):
        check_sizes(store, ["01-T2SPIR", "02-T2SPIR"])


def changed_array(store: Path, change: str) -> Path:
    """Changes an array of the store's first case so that its type and shape stay, or removes it."""
    path = store / "cases/01-T2SPIR" / ("image.npy" if change == "NaN" else "label.npy")
    array = np.load(path)
    if change == "NaN":
        np.save(path, np.full_like(array, np.nan))
    elif change == "shifted":
        np.save(path, np.roll(array, 3, axis=1))
    else:
        path.unlink()
        if change == "pipe":
            os.mkfifo(path)
    return path


@pytest.mark.parametrize("change", ["NaN", "shifted", "missing", "pipe"])
def test_an_array_that_was_changed_is_named(copied: Path, change: str) -> None:
    store = open_store(copied)
    for case in store.cases:
        verify_case(store, case.name)
    path = changed_array(copied, change)
    rule = "is not the array that was prepared" if change in ("NaN", "shifted") else "cannot be read as an array"
    with pytest.raises(InputError, match=f"{path}: {rule}"):
        verify_case(store, "01-T2SPIR")
    verify_case(store, "02-T2SPIR")


def test_inspect_and_prepare_name_an_array_that_was_changed(copied: Path, small_store: Store, tmp_path: Path) -> None:
    path = changed_array(copied, "shifted")
    (error,) = (line for line in describe(copied, SourceOptions()) if line.startswith("error: "))
    assert f"{path}: is not the array that was prepared" in error
    with pytest.raises(InputError, match="is not the array that was prepared"):
        prepare(small_store.source_root, copied, DataConfig(), folds=3)


def test_a_changed_array_is_not_drawn(copied: Path, tmp_path: Path) -> None:
    changed_array(copied, "shifted")
    with pytest.raises(InputError, match=r"label\.npy: is not the array that was prepared"):
        draw_augmented(tmp_path / "seen.png", open_store(copied), AugmentConfig())
    assert not (tmp_path / "seen.png").exists()
