"""Comparisons of trained networks whose answer is known, from the trainings to the words."""

import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimConfig, RunConfig
from attunet.preparation.prepare import prepare

CASES, SLICES, SIDE, CELL, BLOCK = 12, 16, 32, 8, 2
QUIET, LOUD = 1.0, 1000.0
NOISE = 0.05
EPOCHS = {"whole": 18.0, "cut-short": 3.0}
SPACING = np.diag([1.0, 1.0, 5.0, 1.0])


def marked_cells(span: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image `(X, Y, Z)` float32 of deviation 1, and its labels 0 to 2.

    Every cell of a slice has a frame and holds blocks that are bright or dark. In cells with a bright frame these are
    classes 1 and 2, in the others background. A cell's contrast is drawn from 1 to `span`, log-uniform, and says
    nothing; the frames are as strong as the strongest.

    So whether a block counts is told by the frame alone, and a network has to switch off contrasts up to `span` times
    as strong as others that it must tell apart. Adding features before a ReLU, as a decoder does, takes a weight `span`
    times as large, and a sum exact to 1 / `span` where blocks count; multiplying by a sigmoid takes a weight that grows
    with the logarithm. Without a span, a decoder's sum does as well.
    """
    rng = np.random.default_rng([seed, int(span)])
    cells = (SIDE // CELL, SIDE // CELL, SLICES)
    marked = _enlarged(rng.random(cells) < 0.5, CELL)
    contrast = _enlarged(span ** rng.random(cells), CELL)
    bright = _enlarged(rng.random((SIDE // BLOCK, SIDE // BLOCK, SLICES)) < 0.5, BLOCK)
    border = np.arange(SIDE) % CELL < BLOCK
    frame = (border[:, None] | border)[:, :, None] & np.ones(SLICES, dtype=bool)
    image = np.where(frame, np.where(marked, span, -span), np.where(bright, contrast, -contrast))
    image = image + rng.normal(0, NOISE, image.shape)
    return (image / image.std()).astype(np.float32), np.where(marked & ~frame, 1 + bright, 0).astype(np.uint8)


def _enlarged(values: np.ndarray, times: int) -> np.ndarray:
    return values.repeat(times, axis=0).repeat(times, axis=1)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("span", "gates", "cut_short"),
    [
        (QUIET, "do not show a difference", "do not show a difference"),
        (
            LOUD,
            "The data show that whole attention_unet is better than whole unet",
            "The data show that whole unet is better",
        ),
    ],
    ids=["cannot-help", "must-help"],
)
def test_the_comparison_says_what_is_known(attunet, tmp_path: Path, span: float, gates: str, cut_short: str) -> None:
    """Of gates, and of a training cut short: without a span three epochs are enough, with one they are not."""
    from attunet.training.loop import train

    source = tmp_path / "source"
    source.mkdir()
    for number in range(1, CASES + 1):
        for array, name in zip(marked_cells(span, number), ("src", "mask"), strict=True):
            nib.save(nib.Nifti1Image(array, SPACING), source / f"{number:02d}-{name}.nii.gz")
    store = prepare(source, tmp_path / "store", DataConfig(normalization="none"), folds=CASES)
    config = Config(
        data=DataConfig(normalization="none"),
        model=ModelConfig(base_width=8, depth=3),
        augment=AugmentConfig(enabled=False),
        optim=OptimConfig(batch_size=8, lr=1e-2, ema_decay=0.9),
        run=RunConfig(mixed_precision="no", device="cpu", validate_every_epochs=100.0),
    )
    for recipe, epochs in EPOCHS.items():
        own = dataclasses.replace(config, optim=dataclasses.replace(config.optim, epochs=epochs))
        (tmp_path / f"{recipe}.toml").write_text(own.to_toml())
        for name in ("unet", "attention_unet") if recipe == "whole" else ("unet",):
            own = dataclasses.replace(own, model=dataclasses.replace(own.model, name=name))
            for fold in range(CASES):
                train(store.path, tmp_path / f"folds/{recipe}/{name}/seed-0/fold-{fold}", own, fold=fold)
    recipes = [x for recipe in EPOCHS for x in ("--config", tmp_path / f"{recipe}.toml")]
    models = ("--model", "unet", "--model", "attention_unet")
    done = attunet("crossvalidate", store.path, tmp_path / "folds", *models, *recipes, "--seeds", 1, "--no-train")
    assert done.code == 0, done.err
    print(done.out)
    results = json.loads((tmp_path / "folds/results.json").read_text())
    words = {(c["first"], c["second"]): c["words"] for c in results["comparisons"]}
    assert gates in words["whole unet", "whole attention_unet"]
    assert cut_short in words["whole unet", "cut-short unet"]
