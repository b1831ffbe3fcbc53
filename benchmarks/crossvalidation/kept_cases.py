"""Images and attention maps of the cases of a cross-validation, kept for its report beside the label maps in the runs'
folders.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from attunet.benchmarks.crossvalidation.held_out import HeldOut
from attunet.benchmarks.evaluation.saved_cases import FOLDER, HELD_OUT, limit_images, save_attention, save_case
from attunet.errors import InputError
from attunet.runs.run_model import open_run
from attunet.store import Store

logger = logging.getLogger(__name__)

ATTENTION_CASES = 3  # the worst ones, whose attention maps are kept

Key = tuple[str, str, int, int]  # recipe, model, seed, fold


def keep_cases(
    out: Path, store: Store, scored: Mapping[Key, HeldOut | None], *, device: str = "cpu", source: Path | None = None
) -> None:
    """Writes `out/cases/` and, for the worst cases, `CASE.attention.npz` in the folders of the runs with the lowest
    seed.

    Without the source files there are none, which is logged: the scores do not need them.
    """
    held = {key: run for key, run in scored.items() if run is not None}
    means: dict[str, list[float]] = {}
    for run in held.values():
        for case, scores in run.scores[store.preprocessing.postprocessing.words].items():
            means.setdefault(case, []).append(float(np.mean(np.nan_to_num(list(scores["dice"].values())))))
    worst_first = sorted(means, key=lambda case: np.mean(means[case]))
    worst = worst_first[:ATTENTION_CASES]
    first_seed = min(seed for _, _, seed, _ in held)
    try:
        for case in means:
            volume, truth = store.read_source(case, source)
            assert truth is not None, case
            save_case(out / FOLDER / case, volume, truth, store.spec)
        limit_images(out / FOLDER, worst_first)
        for (_, _, seed, fold), run in held.items():
            if seed == first_seed:
                held_out = store.split(fold)[1]
                _keep_attention(run.run, store, [case for case in worst if case in held_out], device, source)
    except InputError as error:
        logger.warning(f"no images for the report: {error}")


def _keep_attention(path: Path, store: Store, cases: list[str], device: str, source: Path | None) -> None:
    if not cases:
        return
    model = open_run(path, device)
    for case in cases if model.num_gates else ():
        volume, _ = store.read_source(case, source)
        save_attention(path / HELD_OUT / f"{case}.attention.npz", model, volume)
