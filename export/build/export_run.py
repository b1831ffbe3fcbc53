"""`attunet export`: write the averaged weights of a run as an artefact that segments like the checkpoint."""

import logging
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from attunet.confidence.estimator import Estimator
from attunet.confidence.fit import NAMES
from attunet.errors import InputError
from attunet.export.artefact.artefact import DISAGREEMENT, PRECISIONS, Artefact
from attunet.export.artefact.artefact_file import write_artefact
from attunet.export.build.graph import export_graph, tidy
from attunet.export.build.judge import judge
from attunet.export.build.learn_confidence import learn_confidence
from attunet.export.build.precision import to_half, to_int8
from attunet.export.build.triton_repository import check_triton_call, write_triton_repository
from attunet.export.build.upsampling import upsample_by_pixel_shuffle
from attunet.export.build.whole_graph import whole_graph
from attunet.export.runtime.segmenter import Segmenter
from attunet.export.runtime.self_test import make_self_test
from attunet.runs.ensemble import load_runs
from attunet.runs.load_run import TrainedRun
from attunet.store import Store, open_store
from attunet.system.atomic_files import write_file
from attunet.system.environment import versions
from attunet.system.pseudonyms import Pseudonyms, pseudonyms
from attunet.volumes.geometry import fit_window
from attunet.volumes.slices import gather_context
from attunet.volumes.spec import LARGEST, MULTIPLE, UNTOUCHED, Postprocessing, Preprocessing

logger = logging.getLogger(__name__)

CALIBRATION_BATCHES, CALIBRATION_BATCH_SIZE = 24, 4
# Versions in the metadata
TOOLS = ("attunet", "torch", "onnx", "onnxscript", "onnxruntime-gpu", "onnxruntime", "numpy")


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
        run_path: a run, or a folder with runs below it.
        out: the `.onnx` file to write; it is written only if the parity check succeeds.
        precision: `fp32`, `fp16` for GPUs, or `int8` for CPUs.
        store: new path of the run's store, if it was moved.
        source: new path of the store's source files, if they were moved.
        outputs: outputs of the graph, any of `labels`, `logits`, `probabilities` and `attention` (one map per gate);
            `logits` is required.
        size: fixes height and width of the slices in pixels; by default the graph accepts any multiples of 16.
        largest_component: True keeps only the largest component of every class; by default as in the store.
        license: license of the training data.
        whole: the graph takes a volume and its spacing and gives its label map, instead of slices and logits.
        triton: name of the model in a repository of NVIDIA's Triton server; `out` is then the repository's folder.
        provider: provider for the parity check, `cpu` or `cuda`; by default cuda for fp16 if it runs here, else cpu.
        parity_cases: number of cases to judge, or "all"; by default as many as take two minutes.
        confidence: a cross-validation of the same network, from whose held-out cases the artefact's estimator of Dice
            and the temperature of its probabilities are learned.
        pseudonymise: a CSV file outside of `out` with the names of the cases; the artefact has their numbers.

    Returns:
        The metadata of the artefact.

    Raises:
        InputError: for arguments that are invalid or do not fit together.
        RunError: with the figures, if the artefact disagrees with the checkpoint on the held-out cases (on training
            cases if the run has no held-out ones).

    Example:
        >>> export_run("run", "model.onnx", precision="int8").dice_at_export["artefact"]  # doctest: +SKIP
    """
    run_path, out, source = Path(run_path), Path(out), Path(source) if source is not None else None
    if triton is not None:
        check_triton_call(out, triton)
    _check_call(out if triton is None else Path("model.onnx"), precision, size, outputs if whole else None, confidence)
    with (
        pseudonyms(pseudonymise, [out]) as names,
        tempfile.TemporaryDirectory(prefix="attunet-export-") as folder,
    ):
        run = load_runs(run_path)
        opened, numbers = _store_of(run, run_path, store, names)
        finish = {None: run.postprocessing, True: max(run.postprocessing, LARGEST), False: UNTOUCHED}[largest_component]
        about = _metadata(
            run, opened, precision, ("labels",) if whole else _output_names(run, outputs), size, finish, license, whole
        )
        if confidence is not None:
            about = _with_confidence(about, learn_confidence(Path(confidence), run, opened, finish, source=source))
        unfinished = "" if run.finished else ", the training is not finished"
        logger.info(f"exporting {run.name} (step {run.step}{unfinished}) as {precision}")
        model = _graph(run, opened, about).SerializeToString()
        draft = Path(folder) / "model.onnx"
        draft.write_bytes(write_artefact(model, about))
        parity = judge(run, opened, draft, source=source, provider=provider, parity_cases=parity_cases)
        parity.refuse_if_different(precision)
        about = replace(about, dice_at_export=parity.to_json(), self_test=make_self_test(Segmenter(draft)))
        about = _in_numbers(about, numbers)
        draft.write_bytes(write_artefact(model, about))
        written = _place(draft, about, out, triton)
        logger.info(f"{written}, mean Dice {parity.to_json()['artefact']} on {parity.seen} cases")
    return about


def _place(draft: Path, about: Artefact, out: Path, triton: str | None) -> str:
    """Write the finished artefact to `out` or into a repository of Triton;
    returns the file and its size for the log.
    """
    data = draft.read_bytes()
    if triton is not None:
        out = write_triton_repository(draft, about, out, triton)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(out, lambda path: path.write_bytes(data))
    return f"{out}: {len(data) / 1e6:.1f} MB"


def _store_of(
    run: TrainedRun, run_path: Path, store: str | Path | None, names: Pseudonyms | None
) -> tuple[Store, dict[str, str]]:
    """The store with cases as the run calls them, and the numbers that stand for these names in the artefact.

    With `names` a run may have numbers already, or still the names of the store.
    """
    opened = open_store(store or run.store)
    if opened.classes != run.classes or opened.spec != run.spec:
        raise InputError(
            f"{opened.path}: must be the store that {run_path} was trained on; classes or pre-processing differ"
        )
    if names is None:
        return opened, {}
    numbered = opened.pseudonymised(names)
    if not run.training_cases.items() <= {case.name: case.image_sha256 for case in opened.cases}.items():
        return numbered, {}
    return opened, names.numbers_of(case.name for case in opened.cases)


def _in_numbers(about: Artefact, numbers: Mapping[str, str]) -> Artefact:
    """The metadata of a checked artefact with `numbers` in place of the names of cases; unchanged without any."""
    if not numbers:
        return about
    assert about.dice_at_export is not None
    scores = {numbers[case]: scores for case, scores in about.dice_at_export["per_case"].items()}
    return replace(
        about,
        training_cases=dict(sorted((numbers[case], digest) for case, digest in about.training_cases.items())),
        dice_at_export={**about.dice_at_export, "per_case": dict(sorted(scores.items()))},
    )


def _check_call(
    out: Path,
    precision: str,
    size: tuple[int, int] | None,
    whole_outputs: Sequence[str] | None,
    confidence: str | Path | None,
) -> None:
    if precision not in PRECISIONS:
        raise InputError(f"precision: must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if out.suffix != ".onnx" or out.is_dir():
        raise InputError(f"{out}: must be a file name that ends in .onnx")
    if size is not None and any(side < MULTIPLE or side % MULTIPLE for side in size):
        raise InputError(f"size: height and width must be multiples of {MULTIPLE}, got {size}")
    if whole_outputs is not None:
        if size is not None:
            raise InputError(
                f"size: must not be given for a whole artefact, which takes volumes of any size, got {size}"
            )
        if extra := [name for name in whole_outputs if name not in ("labels", "logits")]:
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
    run: TrainedRun,
    store: Store,
    precision: str,
    outputs: tuple[str, ...],
    size: tuple[int, int] | None,
    postprocessing: Postprocessing,
    license: str | None,
    whole: bool,
) -> Artefact:
    return Artefact(
        name=run.name,
        precision=precision,
        preprocessing=Preprocessing(run.spec, postprocessing),
        classes=run.classes,
        num_parameters=run.num_parameters,
        ranges=run.ranges,
        outputs=outputs,
        height=size[0] if size else None,
        width=size[1] if size else None,
        training_cases=dict(run.training_cases),
        fold=run.fold,
        parent={"name": run.state.lineage.parent, "sha256": run.state.lineage.sha256} if run.state.lineage else None,
        store_sha256=run.state.store_sha256,
        checkpoint_sha256=run.checkpoint_sha256,
        step=run.step,
        num_members=run.num_members,
        license=license,
        config=run.config.to_json(),
        tools={"python": platform.python_version(), **versions(TOOLS)},
        whole=whole,
    )


def _with_confidence(about: Artefact, estimator: Estimator) -> Artefact:
    """The metadata with the estimator; an ensemble's graph gives the disagreement of its members if the estimator
    weighs it.
    """
    weighs = estimator.fit is not None and estimator.fit.weights[NAMES.index(DISAGREEMENT)] > 0
    outputs = (*about.outputs, DISAGREEMENT) if weighs else about.outputs
    return replace(about, confidence=estimator, outputs=outputs)


def _graph(run: TrainedRun, store: Store, about: Artefact) -> onnx.ModelProto:
    size = (about.height, about.width) if about.height and about.width else None
    temperature = about.confidence.temperature if about.confidence else 1.0
    outputs = ("logits",) if about.whole else about.outputs
    model = export_graph(run.network, run.spec.in_channels, outputs, size, temperature=temperature)
    if about.precision == "fp16":
        model = to_half(model)
    elif about.precision == "int8":
        upsample_by_pixel_shuffle(model)
        model = to_int8(model, _calibration(run, store, size))
    tidy(model)
    return whole_graph(model, run.spec, run.classes, full_batches=about.precision == "fp16") if about.whole else model


def _calibration(run: TrainedRun, store: Store, size: tuple[int, int] | None) -> list[np.ndarray]:
    """Batches of training slices for calibration, evenly spread over the cases:
    float32 (N, C, H, W), all of one shape.
    """
    images = [store.image(case) for case in sorted(run.training_cases)]
    places = [(image, z) for image in images for z in range(len(image))]
    count = min(len(places), CALIBRATION_BATCHES * CALIBRATION_BATCH_SIZE)
    chosen = [places[i] for i in np.linspace(0, len(places) - 1, count).round().astype(int)]
    slices = [gather_context(image, [z], run.spec.context_slices)[0] for image, z in chosen]
    whole = np.stack(slices).astype(np.float32)
    if size is not None:
        whole = fit_window(whole, size, float(whole.min()))
    return [
        whole[i : i + CALIBRATION_BATCH_SIZE]
        for i in range(0, count - CALIBRATION_BATCH_SIZE + 1, CALIBRATION_BATCH_SIZE)
    ] or [whole]
