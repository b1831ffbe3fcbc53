"""`attunet evaluate`: accuracy and speed of runs and artefacts, side by side on the same cases.

Cases are read from the source files, checked against the store's hashes, and scored on their native grid. Two times are
measured: the network alone at a fixed batch size, and a volume from file to file.
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from attunet.benchmarks.evaluation.commands import repeated
from attunet.benchmarks.evaluation.details import FILE as DETAILS
from attunet.benchmarks.evaluation.details import evaluation_details
from attunet.benchmarks.evaluation.memory import peak_memory_mb
from attunet.benchmarks.evaluation.models import BATCH_SIZES, EvaluatedModel, check_seconds, load_models, time_networks
from attunet.benchmarks.evaluation.plots import Predictions, draw_evaluation
from attunet.benchmarks.evaluation.results_table import markdown
from attunet.benchmarks.evaluation.saved_cases import (
    ATTENTION_CASES,
    limit_images,
    require_own_cases,
    save_attention,
    save_case,
    save_prediction,
    worst_first,
)
from attunet.benchmarks.evaluation.saved_cases import FOLDER as CASES
from attunet.benchmarks.evaluation.scores import CaseResult, compare, score_row, volume_times
from attunet.benchmarks.evaluation.timing import Timings, predict_from_file
from attunet.channels import check_channels
from attunet.errors import InputError
from attunet.evaluate_case import read_labelled_case
from attunet.manifest import Case
from attunet.metrics.aggregate import nan_to_null
from attunet.metrics.overlap import confusion
from attunet.metrics.results import EvaluatedRow, EvaluationResults, ModelScores
from attunet.privacy.pseudonyms import pseudonyms
from attunet.store import Store, open_store
from attunet.system.atomic_files import write_text
from attunet.system.environment import environment
from attunet.system.lock import writing
from attunet.system.outputs import RESULTS, new_results, require_own_folder
from attunet.volumes.model import Model

logger = logging.getLogger(__name__)

SCHEMA = 2


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
    pseudonymise: str | Path | None = None,
) -> EvaluationResults:
    """Score and time models on the labelled cases of a store.

    Args:
        store: the prepared data set.
        models: runs, folders of runs, and artefacts.
        out: folder for results.json, results.md and plots/, which replace those of an earlier evaluation.
        providers: that compute the artefacts; each artefact is evaluated with each of them.
        device: on which PyTorch computes the runs, `cpu` or `cuda`.
        fold: evaluates only the cases that this fold holds out.
        source: where the store's source files are now, if they moved.
        latency_seconds: time for timing each model at each batch size.
        pseudonymise: a CSV file outside of `out` with the names of cases and patients; the results have their numbers.

    Returns:
        The content of results.json.

    Raises:
        InputError: for models that do not fit the store, for source files that are missing or changed, and while
            another process writes `out`.
        RunError: for a model or provider that fails during a run.

    Example:
        >>> evaluate("store", ["run", "model.onnx"], "results", fold=0)["models"][0]["dice"]["mean"]  # doctest: +SKIP
    """
    check_seconds(latency_seconds)
    if isinstance(models, str | Path):
        raise InputError(f"evaluate: models must be a list of paths, got {str(models)!r}")
    require_own_folder(Path(out), "an evaluation")
    loaded = load_models([Path(path) for path in models], providers=providers, device=device)
    with pseudonyms(pseudonymise, [out]) as names, writing(Path(out), "evaluation") as lock:
        return evaluate_loaded(
            loaded,
            open_store(store, names, source=source),
            Path(out),
            fold=fold,
            seconds=latency_seconds,
            options=repeated("--provider", providers),
            check=lock.check,
        )


def evaluate_loaded(
    loaded: Sequence[EvaluatedModel],
    opened: Store,
    out: Path,
    *,
    fold: int | None,
    seconds: float,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    options: Sequence[str] = (),
    check: Callable[[], object],
) -> EvaluationResults:
    """The work of `evaluate`, for models that are loaded already. batch_sizes: 1 and 8, which tables show, and any
    others; options: of the command besides the folder and the fold, for the report; check: of the folder's lock.

    Example:
        >>> models, store = load_models([run]), open_store("store")  # doctest: +SKIP
        >>> with writing(out, "evaluation") as lock:  # doctest: +SKIP
        ...     evaluate_loaded(models, store, out, fold=0, seconds=5, check=lock.check)
    """
    cases = _cases(opened, fold)
    for one in loaded:
        _check_fit(one.model, one.path, opened)
    require_own_cases(out)
    arguments = ["--out", out.name, *options, *([] if fold is None else ["--fold", str(fold)])]
    details = evaluation_details(opened, cases, loaded, arguments)  # runs are read again: at once, before they change
    with new_results(out, check) as new:
        by_model, predictions = _evaluate_cases(loaded, opened, cases, new / CASES)
        _keep_worst(loaded, by_model, opened, new / CASES)
        timings = time_networks(loaded, seconds, batch_sizes)
        names, classes = [case.name for case in cases], opened.classes
        results: EvaluationResults = {
            "schema": SCHEMA,
            "environment": environment(),
            "store": {
                "name": opened.name,
                "unit": opened.spec.unit,
                "fold": fold,
                "cases": names,
                "classes": classes.to_json(),
            },
            "models": [
                _row(one, score_row(scored, classes), volume_times(scored), times)
                for one, scored, times in zip(loaded, by_model, timings, strict=True)
            ],
            "comparisons": [
                compare(by_model[0], other, (loaded[0].label, one.label))
                for other, one in zip(by_model[1:], loaded[1:], strict=True)
            ],
        }
        results = nan_to_null(results)
        write_text(new / RESULTS, json.dumps(results, indent=1, allow_nan=False) + "\n")
        write_text(new / "results.md", markdown(results))
        write_text(new / DETAILS, json.dumps(nan_to_null(details), indent=1) + "\n")
        (new / "plots").mkdir()
        draw_evaluation(new / "plots", results, loaded, predictions, opened)
    return results


def _cases(store: Store, fold: int | None) -> list[Case]:
    cases = [c for c in store.cases if c.labelled] if fold is None else list(map(store.case, store.split(fold)[1]))
    if not cases:
        raise InputError(f"{store.path}: no labelled case to evaluate" + ("" if fold is None else f" in fold {fold}"))
    return cases


def _check_fit(model: Model, path: Path, store: Store) -> None:
    """Raises InputError if a model has other classes than a store, or other input channels."""
    if model.classes.names != store.classes.names:
        raise InputError(
            f"{path}: its classes {list(model.classes.names)} are not the store's {list(store.classes.names)}"
        )
    if model.spec.num_channels != store.spec.num_channels:
        raise InputError(
            f"{path}: takes {model.spec.num_channels} channels, the store's cases have {store.spec.num_channels}"
        )
    check_channels(path, model.channels, store.path, store.channels)


def _evaluate_cases(
    models: Sequence[EvaluatedModel], store: Store, cases: Sequence[Case], kept: Path
) -> tuple[list[list[CaseResult]], Predictions]:
    """Segments every case with every model, the models in turn; one list of case results per model, and the label maps.
    kept: folder for images and label maps, which a report shows.
    """
    results: list[list[CaseResult]] = [[] for _ in models]
    seen = [store.seen_cases(one.training_hashes) for one in models]
    predictions = Predictions()
    for number, case in enumerate(cases, start=1):
        labelled = read_labelled_case(store, case.name)
        save_case(kept / case.name, labelled, store.spec)
        first: np.ndarray | None = None
        for index, one in enumerate(models):
            if number == 1:
                predict_from_file(one.model, store, case)  # warm-up, not timed
            indices, milliseconds = predict_from_file(one.model, store, case)
            predictions.add(one.label, case.name, indices)
            save_prediction(kept / case.name / f"prediction-{index}.npz", indices, labelled.volume, store.spec)
            first = indices if first is None else first
            is_seen, metrics = case.name in seen[index], labelled.metrics(indices)
            agreement = confusion(indices, first, len(store.classes))
            results[index].append(CaseResult(case.name, case.patient, is_seen, metrics, agreement, milliseconds))
            logger.info(f"[{number}/{len(cases)}] {results[index][-1].words(one.label)}")
    return results, predictions


def _keep_worst(
    models: Sequence[EvaluatedModel], by_model: Sequence[Sequence[CaseResult]], store: Store, kept: Path
) -> None:
    """Saves the attention maps of the worst cases, which a report shows first, and limits the size of the images."""
    worst = worst_first({rows[0].case: [row.metrics.dice for row in rows] for rows in zip(*by_model, strict=True)})
    limit_images(kept, worst)
    for name in worst[:ATTENTION_CASES]:
        volume, _ = store.read_source(name)
        for index, one in enumerate(models):
            if one.model.num_gates:
                save_attention(kept / name / f"attention-{index}.npz", one.model, volume)


def _row(
    one: EvaluatedModel, scores: ModelScores, volume_ms: dict[str, float], timings: Sequence[Timings]
) -> EvaluatedRow:
    return {
        "name": one.name,
        "file": one.path.name,
        "file_mb": one.file_mb,
        "backend": one.backend,
        "provider": one.provider,
        "provider_options": one.options,
        "precision": one.precision,
        "num_parameters": one.model.num_parameters,
        **scores,
        "volume_ms": volume_ms,
        "latency_ms": {
            "slice_shape": [one.model.spec.in_channels, *one.model.spec.size],
            "batch": {str(t.batch_size): t.latency_ms() for t in timings},
        },
        "throughput_slices_per_s": {"batch": {str(t.batch_size): t.slices_per_s for t in timings}},
        "peak_memory_mb": peak_memory_mb(one.path, provider=one.provider),
    }
