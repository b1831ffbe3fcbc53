"""Parity check of a new artefact: device, cases, and their segmentation by the artefact and by its checkpoint."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from attunet.errors import InputError, RunError
from attunet.evaluate_case import evaluate_case, read_labelled_case
from attunet.export.build.parity import Parity
from attunet.export.runtime.segmenter import Segmenter
from attunet.runs.load_run import TrainedRun
from attunet.runs.run_model import run_model
from attunet.store import Store

logger = logging.getLogger(__name__)

SLOW_SECONDS = 10.0  # duration from which the log announces how long the check will take
MAX_SECONDS = 120.0  # duration of a parity check whose number of cases is not given
MAX_TRAINING_CASES = 8  # number of cases for a run without held-out cases


def judge(
    run: TrainedRun, store: Store, segmenter: Segmenter, parity_cases: int | Literal["all"] | None = None
) -> Parity:
    """Compare an artefact with its checkpoint, both on the device of the artefact's provider, on `parity_cases` cases,
    all, or as many as take `MAX_SECONDS`. Raises InputError for source files that are missing or changed.
    """
    labelled = {case.name for case in store.cases if case.labelled}
    held_out = [case for case in run.held_out if case in labelled]
    training = sorted(case for case in run.training_cases if case in labelled)[:MAX_TRAINING_CASES]
    cases = held_out or training
    if isinstance(parity_cases, int):
        cases = cases[:parity_cases]
    num_classes = len(store.classes)
    parity = Parity(
        store.classes,
        "held out" if held_out else "training",
        {case.name: case.patient for case in store.cases},
        np.zeros((num_classes, num_classes), dtype=np.int64),
    )
    checkpoint = replace(
        run_model(run, segmenter.provider), spec=segmenter.spec, postprocessing=segmenter.postprocessing
    )
    began = time.monotonic()
    for number, name in enumerate(cases, start=1):
        if number == 2:
            limit = MAX_SECONDS if parity_cases is None else None
            cases = _cases_in_time(cases, time.monotonic() - began, limit)
        if number > len(cases):
            break
        case = read_labelled_case(store, name)
        described = parity.add(evaluate_case(checkpoint, case), evaluate_case(segmenter, case))
        logger.info(f"  {number}/{len(cases)} {described}")
    return parity


def _cases_in_time(cases: list[str], seconds: float, max_seconds: float | None) -> list[str]:
    """The cases that fit into the time if each takes as long as the first one took."""
    kept = cases if max_seconds is None else cases[: max(1, int(max_seconds / max(seconds, 1e-3)))]
    if seconds * len(kept) > SLOW_SECONDS or len(kept) < len(cases):
        number = "all" if len(kept) == len(cases) else f"{len(kept)} of"
        minutes = seconds * len(kept) / 60
        logger.info(f"  parity on {number} {len(cases)} cases takes about {minutes:.1f} minutes (--parity-cases)")
    return kept


def open_artefact(draft: Path, provider: str | None) -> Segmenter:
    """The artefact with the provider that judges it, `cpu` or `cuda`; None: cuda for fp16 where a GPU can run it."""
    if provider not in (None, "cpu", "cuda"):
        raise InputError(f"provider: must be cpu or cuda, got {provider!r}")
    segmenter = Segmenter(draft, provider=provider or "cpu")
    if provider is not None or segmenter.metadata.precision != "fp16" or not torch.cuda.is_available():
        return segmenter
    try:
        return Segmenter(draft, provider="cuda")
    except RunError as error:
        logger.info(f"parity is judged on the CPU: {error}")
        return segmenter
