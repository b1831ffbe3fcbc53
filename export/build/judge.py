"""Parity check of a new artefact: choice of the device, the cases and their number."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from attunet.errors import InputError, RunError
from attunet.export.build.parity import Parity, measure_parity
from attunet.export.runtime.segmenter import Segmenter
from attunet.runs.load_run import TrainedRun
from attunet.runs.run_model import run_model
from attunet.store import Store

logger = logging.getLogger(__name__)

MAX_SECONDS = 120.0  # duration of a parity check whose number of cases is not given
MAX_TRAINING_CASES = 8  # number of cases for a run without held-out cases


def judge(
    run: TrainedRun,
    store: Store,
    draft: Path,
    *,
    provider: str | None = None,
    parity_cases: int | Literal["all"] | None = None,
) -> Parity:
    """Compare an artefact with its checkpoint, both on the device of the provider.

    Args:
        run: the checkpoint.
        draft: the artefact.
        provider: `cpu` or `cuda`; None for cuda where the artefact is fp16 and a GPU can run it, else cpu.
        parity_cases: number of cases, or "all"; None for as many as take `MAX_SECONDS`, and one at least.

    Raises:
        InputError: for another provider.
        RunError: if the provider does not load here.

    Example:
        >>> judge(run, store, Path("draft.onnx"), provider="cuda").refuse_if_different("fp16")  # doctest: +SKIP
    """
    segmenter = open_artefact(draft, provider)
    labelled = {case.name for case in store.cases if case.labelled}
    held_out = [case for case in run.held_out if case in labelled]
    training = sorted(case for case in run.training_cases if case in labelled)[:MAX_TRAINING_CASES]
    cases = held_out or training
    if isinstance(parity_cases, int):
        cases = cases[:parity_cases]
    seen: Literal["held out", "training"] = "held out" if held_out else "training"
    checkpoint = replace(
        run_model(run, segmenter.provider), spec=segmenter.spec, postprocessing=segmenter.postprocessing
    )
    limit = MAX_SECONDS if parity_cases is None else None
    return measure_parity(checkpoint, segmenter, store, cases, seen=seen, max_seconds=limit)


def open_artefact(draft: Path, provider: str | None) -> Segmenter:
    """The artefact with the provider that judges it; arguments and errors as for `judge`."""
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
