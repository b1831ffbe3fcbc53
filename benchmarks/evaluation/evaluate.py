"""`attunet evaluate`: accuracy and speed of any mix of runs and artefacts, side by side on the same cases.

Cases come from the source files, checked against the store's hashes, and are judged on their native grid: what a user would give
and get. Two times are told apart: the network alone at a fixed batch, and a volume from file to file.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attunet.benchmarks.evaluation.details import FILE as DETAILS
from attunet.benchmarks.evaluation.details import evaluation_details
from attunet.benchmarks.evaluation.from_file import predict_from_file
from attunet.benchmarks.evaluation.memory import peak_memory_mb
from attunet.benchmarks.evaluation.models import Candidate, load_candidates
from attunet.benchmarks.evaluation.plots import draw_evaluation
from attunet.benchmarks.evaluation.results_table import markdown
from attunet.benchmarks.evaluation.saved_cases import new_cases, save_attention, save_case, save_prediction
from attunet.benchmarks.evaluation.scores import CaseResult, compare, score_row
from attunet.benchmarks.evaluation.timing import Timings, time_interleaved
from attunet.errors import InputError, RunError
from attunet.metrics.aggregate import mean_of_defined, nan_to_null
from attunet.metrics.overlap import case_metrics, confusion
from attunet.store import Case, Store, open_store
from attunet.system.atomic_files import write_text
from attunet.system.environment import environment
from attunet.volumes.slices import preprocess

logger = logging.getLogger(__name__)

SCHEMA = 1
BATCH_SIZES = (1, 8)
ATTENTION_CASES = 3  # the worst ones, whose attention maps are kept


def evaluate(
    store: str | Path,
    models: Sequence[str | Path],
    out: str | Path,
    *,
    providers: Sequence[str] = ("cpu",),
    device: str = "cpu",
    fold: int | None = None,
    source: str | Path | None = None,
    latency_seconds: float = 5.0,
) -> dict[str, Any]:
    """Judges every model on the labelled cases of a store (with `fold`: on those that the fold leaves out) and times it.

    Writes results.json, results.md and plots/ in `out`, replacing those of an earlier evaluation, and returns the results.
    latency_seconds: time for each model and batch size. source: where the source files are now, if they moved.
    Raises InputError for what does not fit together, RunError when a model or a provider fails at work.
    """
    out, source = Path(out), Path(source) if source is not None else None
    opened = open_store(store)
    cases = _cases(opened, fold)
    candidates = load_candidates([Path(model) for model in models], providers=providers, device=device)
    for candidate in candidates:
        _check_fit(candidate, opened)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: must be a folder, or nothing yet")
    with new_cases(out) as kept:
        judged = _judge(candidates, opened, cases, source, kept)
        _keep_attention(candidates, judged, opened, source, kept)
    make_folder(out)
    timings = _time(candidates, latency_seconds)
    rows = [_row(c, score_row(results, opened.classes), timed) for c, results, timed in zip(candidates, judged, timings, strict=True)]
    labels = [c.label for c in candidates]
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "environment": environment(),
        "store": {"name": opened.name, "fold": fold, "cases": [c.name for c in cases], "classes": opened.classes.to_json()},
        "models": rows,
        "comparisons": [compare(judged[0], other, (labels[0], label)) for other, label in zip(judged[1:], labels[1:], strict=True)],
    }
    results = nan_to_null(results)
    write_text(out / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_text(out / "results.md", markdown(results))
    arguments = ["--out", out.name, *(x for p in providers for x in ("--provider", p)), *([] if fold is None else ["--fold", str(fold)])]
    write_text(out / DETAILS, json.dumps(nan_to_null(evaluation_details(opened, cases, candidates, arguments)), indent=1) + "\n")
    draw_evaluation(out / "plots", results, candidates, opened, source=source)
    return results


def _cases(store: Store, fold: int | None) -> list[Case]:
    labelled = [c for c in store.cases if c.labelled]
    if fold is not None:
        held_out = set(store.split(fold)[1])
        labelled = [c for c in labelled if c.name in held_out]
    if not labelled:
        raise InputError(f"{store.path}: no labelled case to evaluate" + ("" if fold is None else f" in fold {fold}"))
    return labelled


def _check_fit(candidate: Candidate, store: Store) -> None:
    if candidate.classes.names != store.classes.names:
        raise InputError(f"{candidate.path}: its classes {list(candidate.classes.names)} are not the store's {list(store.classes.names)}")
    if candidate.spec.num_channels != store.spec.num_channels:
        raise InputError(
            f"{candidate.path}: takes {candidate.spec.num_channels} channels, the store's cases have {store.spec.num_channels}"
        )


def make_folder(out: Path) -> None:
    """`out` with a folder for pictures, without those of an earlier table."""
    try:
        (out / "plots").mkdir(parents=True, exist_ok=True)
        if (out / "results.json").exists():
            for picture in (out / "plots").glob("*.png"):
                picture.unlink()
    except OSError as error:
        raise InputError(f"{out}: cannot be made a folder: {error.strerror}") from None


def _seen_patients(candidate: Candidate, store: Store) -> set[str]:
    return {c.patient for c in store.cases if c.image_sha256 in candidate.training_hashes}


def _judge(candidates: Sequence[Candidate], store: Store, cases: Sequence[Case], source: Path | None, kept: Path) -> list[list[CaseResult]]:
    """Every case through every model, models in turn: one list of case results per model. kept: the folder for images and label maps."""
    judged: list[list[CaseResult]] = [[] for _ in candidates]
    seen = [_seen_patients(c, store) for c in candidates]
    for number, case in enumerate(cases):
        volume, truth = store.read_source(case.name, source)
        assert truth is not None, case.name
        save_case(kept / case.name, volume, truth, store.spec)
        first: np.ndarray | None = None
        for index, (candidate, patients, results) in enumerate(zip(candidates, seen, judged, strict=True)):
            if number == 0:
                predict_from_file(candidate, store, case, source)  # warm: not timed
            prediction, milliseconds = predict_from_file(candidate, store, case, source)
            save_prediction(kept / case.name / f"prediction-{index}.npz", prediction, volume, store.spec)
            first = prediction if first is None else first
            metrics = case_metrics(prediction, truth, volume.spacing, len(store.classes))
            agreement = confusion(prediction, first, len(store.classes))
            results.append(CaseResult(case.name, case.patient, case.patient in patients, metrics, agreement, milliseconds))
            logger.info(_progress(candidate, results[-1], number + 1, len(cases)))
    return judged


def _keep_attention(
    candidates: Sequence[Candidate], judged: Sequence[Sequence[CaseResult]], store: Store, source: Path | None, kept: Path
) -> None:
    """The gates' maps of the worst cases, which a report shows first."""
    means = {results[0].case: np.mean([np.nan_to_num(r.metrics.dice).mean() for r in results]) for results in zip(*judged, strict=True)}
    for name in sorted(means, key=lambda case: float(means[case]))[:ATTENTION_CASES]:
        volume, _ = store.read_source(name, source)
        for index, candidate in enumerate(candidates):
            if candidate.attention is None:
                continue
            path, spec = kept / name / f"attention-{index}.npz", candidate.spec
            save_attention(path, candidate.attention, preprocess(volume, spec), volume, spec)


def _progress(candidate: Candidate, result: CaseResult, number: int, total: int) -> str:
    seen = ", seen in training" if result.seen else ""
    milliseconds = sum(result.milliseconds.values())
    dice = mean_of_defined(result.metrics.dice)
    shown = "no class" if np.isnan(dice) else f"Dice {dice:.3f}"
    return f"[{number}/{total}] {result.case}: {candidate.label}: {shown}, {milliseconds:.0f} ms{seen}"


def _time(candidates: Sequence[Candidate], seconds: float) -> list[list[Timings]]:
    """The network alone at each batch size, models in turn: one list of timings per model."""
    timed: list[list[Timings]] = [[] for _ in candidates]
    for batch_size in BATCH_SIZES:
        logger.info(f"timing {len(candidates)} models at batch {batch_size}, {seconds:g} s each")
        calls = [c.timed_call(c.random_slices(batch_size)) for c in candidates]
        for timings, runs in zip(timed, time_interleaved(calls, seconds=seconds), strict=True):
            timings.append(Timings(batch_size, runs))
    return timed


def _memory(candidate: Candidate) -> float | None:
    try:
        return peak_memory_mb(candidate.path, provider=candidate.provider, batch_size=BATCH_SIZES[-1])
    except RunError as error:  # the other figures are worth keeping
        logger.info(f"no figure for memory: {error}")
        return None


def _row(candidate: Candidate, scores: dict[str, Any], timings: Sequence[Timings]) -> dict[str, Any]:
    return {
        "name": candidate.name,
        "file": candidate.path.name,
        "file_mb": candidate.file_mb,
        "backend": candidate.backend,
        "provider": candidate.provider,
        "provider_options": candidate.options,
        "precision": candidate.precision,
        "num_parameters": candidate.num_parameters,
        **scores,
        "latency_ms": {
            "slice_shape": [candidate.spec.in_channels, *candidate.window],
            "batch": {str(t.batch_size): t.latency_ms() for t in timings},
        },
        "throughput_slices_per_s": {"batch": {str(t.batch_size): t.slices_per_s for t in timings}},
        "peak_memory_mb": _memory(candidate),
    }
