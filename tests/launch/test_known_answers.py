"""Comparisons of trained networks whose answer is known, from the trainings to the words."""

import dataclasses
import json
from pathlib import Path

import pytest

from attunet.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimConfig, RunConfig
from attunet.prepare import prepare

EPOCHS = {"whole": 16.0, "cut-short": 3.0}
CASES = 6


@pytest.mark.soak
def test_the_comparison_says_what_is_known(attunet, write_case, tmp_path: Path) -> None:
    """Where organs are as bright as their label, the skips hold nothing to suppress and gates cannot help; a fifth of one must hurt."""
    from attunet.training import train

    for number in range(1, CASES + 1):
        write_case(tmp_path / "source", f"{number:02d}-T2SPIR", seed=number)
    store = prepare(tmp_path / "source", tmp_path / "store", DataConfig(), folds=CASES, report=lambda line: None)
    base = Config(
        model=ModelConfig(base_width=4, depth=2),
        augment=AugmentConfig(enabled=False),
        optim=OptimConfig(batch_size=4, lr=1e-2, ema_decay=0.9),
        run=RunConfig(mixed_precision="no", device="cpu", validate_every_epochs=100.0),
    )
    for recipe, epochs in EPOCHS.items():
        config = dataclasses.replace(base, optim=dataclasses.replace(base.optim, epochs=epochs), data=DataConfig())
        (tmp_path / f"{recipe}.toml").write_text(config.to_toml())
        for model in ("unet", "attention_unet") if recipe == "whole" else ("unet",):
            for seed in (0, 1):
                for fold in range(CASES):
                    own = dataclasses.replace(
                        config,
                        model=dataclasses.replace(config.model, name=model),
                        run=dataclasses.replace(config.run, seed=seed),
                    )
                    run = tmp_path / "folds" / recipe / model / f"seed-{seed}" / f"fold-{fold}"
                    train(store.path, run, own, fold=fold, report=lambda line: None)
    recipes = [x for recipe in EPOCHS for x in ("--config", tmp_path / f"{recipe}.toml")]
    models = ("--model", "unet", "--model", "attention_unet")
    done = attunet("crossvalidate", store.path, tmp_path / "folds", *models, *recipes, "--seeds", 2, "--no-train")
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "folds/results.json").read_text())
    words = {(c["first"], c["second"]): c["words"] for c in results["comparisons"]}
    print(results["comparisons"])
    assert "do not show a difference" in words["whole unet", "whole attention_unet"]
    assert "The data show that whole unet is better" in words["whole unet", "cut-short unet"]
