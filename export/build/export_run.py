"""`attunet export`: write the averaged weights of a run as an artefact that segments like the checkpoint."""

import logging
import platform
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from attunet.channels import check_channels
from attunet.confidence.estimator import Estimator
from attunet.confidence.fit import NAMES
from attunet.errors import InputError
from attunet.export.artefact.artefact import PRECISIONS, Artefact
from attunet.export.artefact.artefact_file import write_artefact
from attunet.export.artefact.graph_tensors import DISAGREEMENT
from attunet.export.artefact.signature import signature_of
from attunet.export.build.graph_of_run import calibration_slices_of, graph_of
from attunet.export.build.judge import judge, open_artefact
from attunet.export.build.learn_confidence import learn_confidence
from attunet.export.build.triton_repository import check_triton_call, write_triton_repository
from attunet.export.runtime.segmenter import Segmenter
from attunet.export.runtime.self_test import make_self_test
from attunet.fields import Rule, is_whole
from attunet.privacy.pseudonyms import pseudonyms
from attunet.runs.ensemble import load_runs
from attunet.runs.load_run import TrainedRun, in_numbers
from attunet.store import Store, open_store
from attunet.system.atomic_files import write_file
from attunet.system.environment import versions
from attunet.system.lock import writing
from attunet.system.private_folder import PrivateFolder
from attunet.volumes.spec import LARGEST, MAX_SIDE, MULTIPLE, UNTOUCHED, Preprocessing

logger = logging.getLogger(__name__)

TOOLS = ("attunet", "torch", "onnx", "onnxscript", "onnxruntime-gpu", "onnxruntime", "numpy")  # in the metadata


def export_run(
    run_path: str | Path,
    out: str | Path,
    *,
    precision: str = "fp32",
    store: str | Path | None = None,
    source: str | Path | None = None,
    outputs: Sequence[str] = ("labels", "logits"),
    size: tuple[int, int] | None = None,
    largest_component: bool | None = None,
    license: str | None = None,
    whole: bool = False,
    triton: str | None = None,
    provider: str | None = None,
    parity_cases: int | Literal["all"] | None = None,
    confidence: str | Path | None = None,
    pseudonymise: str | Path | None = None,
) -> Artefact:
    """Write the artefact of a run's newest checkpoint, or of a folder of runs as one ensemble.

    Args:
        run_path: the folder of a run, or a folder of such folders.
        out: the `.onnx` file to write; it is written only if the parity check succeeds.
        precision: `fp32`, `fp16` for GPUs, or `int8` for CPUs.
        store: new path of the run's store, if it was moved. source: likewise of the store's source files.
        outputs: any of `labels`, `logits`, `probabilities` and `attention` (a map per gate); `logits` is required.
        size: fixed height and width of the slices in pixels; by default any multiples of 16.
        largest_component: True keeps only the largest component of every class; by default as in the store.
        license: of the training data.
        whole: the graph takes a volume and its spacing and gives its label map, instead of slices and logits.
        triton: name of the model in a repository of NVIDIA's Triton server; `out` is then the repository's folder.
        provider: of the parity check, `cpu` or `cuda`; by default cuda for fp16 if it runs here, else cpu.
        parity_cases: number of cases to judge, or "all"; by default as many as take two minutes.
        confidence: a cross-validation of the network, from which estimates of Dice and the temperature are learned.
        pseudonymise: a CSV file outside of `out` with the names of the cases; the artefact has their numbers.

    Returns:
        The metadata of the artefact.

    Raises:
        InputError: for arguments that are invalid or do not fit together, and while another process writes `out`.
        RunError: with the figures, if the artefact disagrees with the checkpoint on held-out cases (or training cases).

    Example:
        >>> export_run("run", "model.onnx", precision="int8").dice_at_export["artefact"]  # doctest: +SKIP
    """
    out = Path(out)
    _check_call(out, precision, size, triton, parity_cases)
    Rule(bool, null=True).check("largest_component", largest_component)
    Rule(str, null=True).check("license", license)
    if whole:
        _check_whole(outputs, size, confidence)
    with pseudonyms(pseudonymise, [out]) as names, writing(out, "export"), PrivateFolder() as folder:
        run = load_runs(Path(run_path))
        opened = open_store(store or run.store, names, source=source)
        run = of_store(run, opened)
        about = _metadata(run, ("labels",) if whole else _output_names(run, outputs), size, largest_component)
        channels = about.channels if names is None else opened.channels
        about = replace(about, precision=precision, license=license, whole=whole, channels=channels)
        if confidence is not None:
            about = _with_confidence(about, learn_confidence(Path(confidence), run, opened, about.postprocessing))
        unfinished = "" if run.finished else ", the training is not finished"
        logger.info(f"exporting {run.name} (step {run.step}{unfinished}) as {precision}")
        graph = graph_of(run.network, about, partial(calibration_slices_of, run, opened)).SerializeToString()
        draft = folder.path / "model.onnx"
        write_file(draft, lambda path: path.write_bytes(write_artefact(graph, about)))
        parity = judge(run, opened, open_artefact(draft, provider), parity_cases)
        parity.refuse_if_different(precision)
        about = replace(about, dice_at_export=parity.to_json(), self_test=make_self_test(Segmenter(draft)))
        _write(write_artefact(graph, about), about, out, triton)
        return about


def _write(data: bytes, about: Artefact, out: Path, triton: str | None) -> None:
    """Write the artefact to the file `out`, or into the repository of Triton there."""
    if triton is not None:
        out = write_triton_repository(data, about, out, triton)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists():
            logger.info(f"{out}: replaces the earlier file of this name, whose signature is removed if it has one")
        write_file(out, lambda path: path.write_bytes(data))
        signature_of(out).unlink(missing_ok=True)  # of the earlier artefact
    dice = about.dice_at_export
    assert dice is not None
    logger.info(f"{out}: {len(data) / 1e6:.1f} MB, mean Dice {dice['artefact']} on {dice['cases']} cases")


def of_store(run: TrainedRun, opened: Store) -> TrainedRun:
    """The run with cases as the store calls them.

    Raises InputError for another store than the one that it was trained on, as far as can be seen: other classes,
    pre-processing or channels, a case that it was trained on by its name and not by its scan, or the reverse, and other
    masks of the training cases.
    """
    if opened.classes != run.classes or opened.spec != run.spec:
        raise InputError(
            f"{opened.path}: must be the store that {run.path} was trained on; classes or pre-processing differ"
        )
    check_channels(run.path, run.channels, opened.path, opened.channels)
    run = in_numbers(run, opened)
    seen = opened.seen_cases(run.seen_hashes)
    was_seen = {**dict.fromkeys(run.held_out, False), **dict.fromkeys(run.training_cases, True)}
    for case in opened.cases:
        if was_seen.get(case.name, case.name in seen) != (case.name in seen):
            raise InputError(
                f"{opened.path}: its case {case.name} is another scan, or another patient's, than {case.name} of "
                f"{run.path}; name the store that it was trained on"
            )
    run.check_masks(opened, run.path)
    if run.store_sha256 != opened.sha256:
        logger.warning(f"{opened.path}: is not as it was when {run.name} was trained; Dice is of its masks now")
    return run


def _check_call(
    out: Path,
    precision: str,
    size: tuple[int, int] | None,
    triton: str | None,
    parity_cases: int | Literal["all"] | None,
) -> None:
    if triton is not None:
        check_triton_call(out, triton)
    elif out.suffix != ".onnx" or out.is_dir():
        raise InputError(f"{out}: must be a file name that ends in .onnx")
    if precision not in PRECISIONS:
        raise InputError(f"precision: must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    sides = size if isinstance(size, tuple | list) else [size]
    is_allowed = len(sides) == 2 and all(type(s) is int and s in range(MULTIPLE, MAX_SIDE + 1, MULTIPLE) for s in sides)
    if size is not None and not is_allowed:
        raise InputError(f"size: height and width must be multiples of {MULTIPLE} up to {MAX_SIDE}, got {size}")
    if parity_cases not in (None, "all") and not (is_whole(parity_cases) and parity_cases):
        raise InputError(f"parity_cases: must be a whole number from 1 or all, got {parity_cases!r}")


def _check_whole(outputs: Sequence[str], size: tuple[int, int] | None, confidence: str | Path | None) -> None:
    if size is not None:
        raise InputError(f"size: must not be given for a whole artefact, which takes volumes of any size, got {size}")
    if extra := [name for name in outputs if name not in ("labels", "logits")]:
        raise InputError(f"outputs: a whole artefact gives labels alone, got {extra[0]!r}")
    if confidence is not None:
        raise InputError(
            "--confidence: needs probabilities, a whole artefact gives labels alone; export without --whole"
        )


def _output_names(run: TrainedRun, outputs: Sequence[str]) -> tuple[str, ...]:
    known = ("labels", "logits", "probabilities", "attention")
    if unknown := [name for name in outputs if name not in known]:
        raise InputError(f"outputs: must be some of {', '.join(known)}, got {unknown[0]!r}")
    if "logits" not in outputs:
        raise InputError(
            f"outputs: must include logits, from which labels on the native grid are made, got {list(outputs)}"
        )
    names = [name for name in known[:3] if name in outputs]
    if "attention" in outputs:
        if not run.num_gates:
            raise InputError(
                f"outputs: attention needs a network with attention gates, {run.name} is a {run.config.model.name}"
            )
        names += [f"attention_{gate}" for gate in range(run.num_gates)]
    return tuple(names)


def _metadata(
    run: TrainedRun, outputs: tuple[str, ...], size: tuple[int, int] | None, largest_component: bool | None
) -> Artefact:
    finish = {None: run.postprocessing, True: max(run.postprocessing, LARGEST), False: UNTOUCHED}[largest_component]
    height, width = size or (None, None)
    lineage = run.lineage
    return Artefact(
        name=run.name,
        precision="fp32",
        preprocessing=Preprocessing(run.spec, finish),
        classes=run.classes,
        channels=tuple(run.channels),
        num_parameters=run.num_parameters,
        ranges=run.ranges,
        outputs=outputs,
        height=height,
        width=width,
        training_cases=dict(run.training_cases),
        training_voxels=tuple(run.training_voxels),
        fold=run.fold,
        parent={"name": lineage.parent, "sha256": lineage.sha256} if lineage else None,
        store_sha256=run.store_sha256 or None,
        checkpoint_sha256=run.checkpoint_sha256,
        step=run.step,
        num_members=run.num_members,
        config=run.config.to_json(),
        tools={"python": platform.python_version(), **versions(TOOLS)},
    )


def _with_confidence(about: Artefact, estimator: Estimator) -> Artefact:
    """The metadata with the estimator, and with the disagreement of an ensemble's members where it has a weight."""
    weighs = estimator.fit is not None and estimator.fit.weights[NAMES.index(DISAGREEMENT)] > 0
    outputs = (*about.outputs, DISAGREEMENT) if weighs else about.outputs
    return replace(about, confidence=estimator, outputs=outputs)
