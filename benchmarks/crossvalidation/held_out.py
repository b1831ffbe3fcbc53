"""A finished run of a cross-validation, judged on the cases that it left out: from the source files, on the native grid."""

import dataclasses
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attunet.config import Config
from attunet.errors import InputError
from attunet.metrics.overlap import CaseMetrics, case_metrics
from attunet.models.torch_network import TorchNetwork
from attunet.runs.checkpoint import newest_checkpoint
from attunet.runs.identity import FREE_TO_CHANGE
from attunet.runs.load_run import TrainedRun, load_run
from attunet.store import Store
from attunet.system.atomic_files import MANIFEST, sha256, write_text
from attunet.volumes.postprocess import postprocess
from attunet.volumes.predict import predict_volume
from attunet.volumes.spec import Postprocessing

logger = logging.getLogger(__name__)

SCHEMA = 2  # with the hashes of the cases that were judged
FILE = "held_out.json"  # in the run's folder, beside its checkpoints
METRICS = tuple(f.name for f in dataclasses.fields(CaseMetrics) if f.name != "counts")

Scores = dict[str, dict[str, dict[str, float]]]  # case: metric: class: value, NaN where not defined


@dataclass(frozen=True)
class HeldOut:
    """What a finished run scored on the cases it left out; scores: by the words for the way of finishing a label map."""

    run: Path
    steps: int
    scores: dict[str, Scores]


def judge_run(
    path: Path,
    store: Store,
    fold: int,
    config: Config,
    *,
    ways: Sequence[Postprocessing],
    device: str = "cpu",
    source: Path | None = None,
) -> HeldOut | None:
    """The scores of the run at `path`, or None where no training has finished there; kept in the run's folder and read again.

    config: what the run must have been trained with (`auto` values settled or not). ways: of finishing a label map.
    Raises InputError where the run is of another store, fold or configuration.
    """
    if not progress_of(path)[1]:
        return None
    run = load_run(path)
    check_belongs(run, store, fold, config)
    judged = {case.name: [case.image_sha256, case.label_sha256] for case in store.cases if case.name in run.held_out}
    facts = {"schema": SCHEMA, "checkpoint": sha256(run.checkpoint / MANIFEST), "step": run.step, "cases": judged}
    scores = _kept(path / FILE, facts)
    if missing := [way for way in ways if way.words not in scores]:
        scores = scores | _judge(run, store, missing, TorchNetwork(run.network, device), source)
        write_text(path / FILE, json.dumps(facts | {"scores": _with_null(scores)}, indent=1, allow_nan=False))
    return HeldOut(path, run.step, {way.words: scores[way.words] for way in ways})


def progress_of(path: Path) -> tuple[int, bool]:
    """The step of a run's newest checkpoint that verifies (0 without one), and whether the training is finished."""
    try:
        checkpoint = newest_checkpoint(path / "checkpoints", parts=())
    except InputError:  # all are damaged: the training itself says so when it is continued
        checkpoint = None
    return (0, False) if checkpoint is None else (checkpoint.state["step"], checkpoint.state["finished"])


def check_belongs(run: TrainedRun, store: Store, fold: int, config: Config) -> None:
    """InputError naming the first thing in which a run is not what its place in a cross-validation says."""
    training, held_out = store.split(fold)
    cases = {case.name: case for case in store.cases}
    if run.fold != fold or run.training_cases != {case: cases[case].image_sha256 for case in training} or run.held_out != held_out:
        raise InputError(f"{run.path}: must be fold {fold} of {store.path}; it was trained on other cases")
    if run.training_labels not in (None, {case: cases[case].label_sha256 for case in training}):
        raise InputError(f"{run.path}: was trained with other masks than {store.path} has")
    if run.spec != store.spec or run.classes != store.classes:
        raise InputError(f"{run.path}: must be of {store.path}; its preprocessing or its classes differ")
    for section in ("model", "augment", "optim", "run"):
        wanted, there = (dataclasses.asdict(getattr(c, section)) for c in (config, run.config))
        for name, value in wanted.items():
            if there[name] != value and value != "auto" and not (section == "run" and name in FREE_TO_CHANGE):
                raise InputError(f"{run.path}: was trained with {section}.{name} = {there[name]!r}, this comparison wants {value!r}")


def _judge(
    run: TrainedRun,
    store: Store,
    ways: Sequence[Postprocessing],
    network: TorchNetwork,
    source: Path | None,
) -> dict[str, Scores]:
    scores: dict[str, Scores] = {way.words: {} for way in ways}
    for name in run.held_out:
        volume, truth = store.read_source(name, source)
        assert truth is not None, name
        prediction = predict_volume(network, volume, run.spec)
        for way in ways:
            indices = postprocess(prediction, len(store.classes), volume.spacing, way)
            found = case_metrics(indices, truth, volume.spacing, len(store.classes))
            scores[way.words][name] = {m: dict(zip(store.classes.foreground, map(float, getattr(found, m)), strict=True)) for m in METRICS}
        dice = np.array(list(scores[ways[0].words][name]["dice"].values()))
        shown = "no class" if np.isnan(dice).all() else f"Dice {np.nanmean(dice):.4f}"
        logger.info(f"{run.path}: {name}: {shown}")
    return scores


def _kept(file: Path, facts: Mapping[str, Any]) -> dict[str, Scores]:
    """What an earlier call found for the same checkpoint and the same cases, or nothing."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(data, dict) or any(data.get(name) != value for name, value in facts.items()):
        return {}
    kept: dict[str, Scores] = _with_nan(data.get("scores", {}))
    return kept


def _with_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _with_null(v) for k, v in value.items()}
    return None if math.isnan(value) else value


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _with_nan(v) for k, v in value.items()}
    return math.nan if value is None else value
