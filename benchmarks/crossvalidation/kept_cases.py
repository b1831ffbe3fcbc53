"""Images and attention maps of the cases of a cross-validation, kept for its report beside the label maps in the runs'
folders.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from attunet.benchmarks.crossvalidation.held_out import HeldOut
from attunet.benchmarks.crossvalidation.plan import Key
from attunet.benchmarks.evaluation.saved_cases import (
    ATTENTION_CASES,
    FOLDER,
    HELD_OUT,
    limit_images,
    save_attention,
    save_case,
    worst_first,
)
from attunet.errors import InputError
from attunet.evaluate_case import read_labelled_case
from attunet.runs.run_model import open_run
from attunet.store import Store

logger = logging.getLogger(__name__)


def keep_cases(out: Path, store: Store, scored: Mapping[Key, HeldOut | None], *, device: str) -> None:
    """Writes `out/cases/` and, for the worst cases, `CASE.attention.npz` in the folders of the runs with the lowest
    seed.

    Without the source files there are none, which is logged: the scores do not need them.
    """
    held = {key: run for key, run in scored.items() if run is not None}
    dice: dict[str, list[list[float]]] = {}
    for run in held.values():
        for case, scores in run.scores[store.preprocessing.postprocessing.words].items():
            dice.setdefault(case, []).append(list(scores["dice"].values()))
    ordered = worst_first(dice)
    first_seed = min(seed for _, _, seed, _ in held)
    try:
        for name in dice:
            save_case(out / FOLDER / name, read_labelled_case(store, name), store.spec)
        limit_images(out / FOLDER, ordered)
        for (_, _, seed, fold), run in held.items():
            if seed == first_seed:
                held_out = store.split(fold)[1]
                worst = [name for name in ordered[:ATTENTION_CASES] if name in held_out]
                _keep_attention(run.run, store, worst, device)
    except InputError as error:
        logger.warning(f"no images for the report: {error}")


def _keep_attention(path: Path, store: Store, cases: list[str], device: str) -> None:
    if not cases:
        return
    model = open_run(path, device)
    for case in cases if model.num_gates else ():
        volume, _ = store.read_source(case)
        save_attention(path / HELD_OUT / f"{case}.attention.npz", model, volume)
