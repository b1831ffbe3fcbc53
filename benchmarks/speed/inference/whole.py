"""A whole graph beside the slice graph, on one scan:
`python -m attunet.benchmarks.speed.inference.whole [--provider cuda] [--json FILE]`.

With the slice graph the runtime prepares slices in NumPy, runs the network in batches, and takes labels back to the
scan's grid; a whole graph does all of that itself. Both segment one generated scan in one process, in turns, from
voxels in memory to labels on the scan's own grid. The network has random weights. Wall time and user CPU time of the
process are medians of the runs; user time with one thread hardly depends on what else the machine does.
"""

import logging
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from attunet.benchmarks.evaluation.results_table import Json
from attunet.benchmarks.speed.inference.forms import CALIBRATION_SLICES, fresh_network
from attunet.benchmarks.speed.program import (
    choices,
    percentile_fields,
    program_parser,
    run_program,
    table_with_skipped,
)
from attunet.classes import CHAOS_MR
from attunet.config import MODELS
from attunet.errors import InputError, RunError
from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.artefact_file import write_artefact
from attunet.export.build.graph_of_run import graph_of
from attunet.export.runtime.segmenter import Segmenter
from attunet.models import SegmentationNetwork
from attunet.system.environment import environment
from attunet.system.private_folder import PrivateFolder
from attunet.volumes.slices import VolumeSlices
from attunet.volumes.spec import Preprocessing, PreprocessSpec
from attunet.volumes.volume import Volume

logger = logging.getLogger(__name__)

PIXEL_MM, SLICE_MM = 1.0, 6.0  # of the scan
FORMS = ("ordinary", "whole")
COLUMNS = {
    "precision": "{precision}",
    "size": "{size}",
    **{f"{form} ms": f"{{{form}[wall_ms_p50]:.1f}}" for form in FORMS},
    "whole / ordinary": "{ratio_wall:.3f}",
    "user CPU": "{ratio_user:.3f}",
    "voxels that differ": "{differ:,} of {voxels:,}",
}


def measure(
    *,
    provider: str,
    model: str = "attention_unet",
    width: int | None = None,
    sizes: Sequence[int],
    precisions: Sequence[str] | None = None,
    slices: int,
    runs: int,
    enlarged: float = 1.5,
    num_threads: int | None = None,
) -> Json:
    """Times and agreement of every precision and size, as JSON values; arguments are the program's options. A precision
    that the provider does not run is in `skipped`, with the reason.

    Example:
        >>> results = measure(provider="cpu", width=4, sizes=[32], precisions=["fp32"], slices=3, runs=2)
        >>> results["rows"][0]["differ"]
        0
    """
    if min(slices, runs, enlarged) < 1 or any(size < 32 or size % 16 for size in sizes):
        raise InputError(
            "--slices, --runs, --enlarged and --sizes: must be at least 1, 1, 1, and multiples of 16 from 32, "
            f"got {slices}, {runs}, {enlarged:g} and {', '.join(map(str, sizes))}"
        )
    on_gpu = provider == "cuda"
    width = width or (64 if on_gpu else 16)
    network = fresh_network(model, width=width)
    rows, skipped = [], {}
    with PrivateFolder() as folder:
        for size in sizes:
            scan = generated_scan(round(size * enlarged), slices)
            balance_head(network, scan, spec_of(scan, size))
            for precision in precisions or (("fp32", "fp16") if on_gpu else ("fp32", "fp16", "int8")):
                name = f"{precision}, {size}"
                logger.info(f"{name}: exporting")
                paths = write_pair(network, precision, size, scan, folder.path)
                try:
                    ordinary, whole = (Segmenter(path, provider=provider, num_threads=num_threads) for path in paths)
                    rows.append({"precision": precision, "size": size, **_row(ordinary, whole, scan, runs)})
                except (InputError, RunError) as error:
                    skipped[name] = str(error)
                    logger.info(f"skipped: {name}: {error}")
    if not rows:
        raise RunError(f"whole: nothing could be measured; {skipped}")
    settings = {"provider": provider, "model": model, "width": width, "slices": slices, "runs": runs}
    settings |= {"enlarged": enlarged, "threads": num_threads}
    return {"environment": environment(), "settings": settings, "skipped": skipped, "rows": rows}


def _row(ordinary: Segmenter, whole: Segmenter, scan: Volume, runs: int) -> Json:
    wall, user = _in_turns([lambda: ordinary.predict_volume(scan), lambda: whole.predict_volume(scan)], runs)
    row: Json = {"scan": list(scan.shape), "runs": runs}
    for form, seconds, cpu in zip(FORMS, wall.T, user.T, strict=True):
        row[form] = {**percentile_fields(1000 * seconds, "wall_ms_p{}"), "user_ms": 1000 * float(np.median(cpu))}
    row["ratio_wall"] = row["whole"]["wall_ms_p50"] / row["ordinary"]["wall_ms_p50"]
    row["ratio_user"] = row["whole"]["user_ms"] / max(row["ordinary"]["user_ms"], 1e-9)
    first, second = ordinary.predict_volume(scan), whole.predict_volume(scan)
    agreement = {"voxels": first.size, "classes": len(np.unique(first)), "differ": int((first != second).sum())}
    return {**row, **agreement}


def _in_turns(calls: Sequence[Callable[[], object]], runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Wall and user CPU seconds (runs, calls), after two untimed runs of each call."""
    for call in calls:
        call(), call()
    wall, user = np.empty((runs, len(calls))), np.empty((runs, len(calls)))
    for run in range(runs):
        for index, call in enumerate(calls):
            began, used = time.perf_counter(), _user_seconds()
            call()
            wall[run, index], user[run, index] = time.perf_counter() - began, _user_seconds() - used
    return wall, user


def _user_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def spec_of(scan: Volume, size: int) -> PreprocessSpec:
    """Pre-processing that makes `size` × `size` pixels of the scan's slices."""
    return PreprocessSpec("LPS", 2, spacing_mm=PIXEL_MM * scan.shape[0] / size, size=(size, size))


def generated_scan(side: int, slices: int) -> Volume:
    """Smooth spots and noise, int16, with slices of `side` × `side` pixels."""
    random = np.random.default_rng(0)
    coarse = random.normal(300, 120, (-(-side // 24), -(-side // 24), slices))
    data = np.kron(coarse, np.ones((24, 24, 1)))[:side, :side] + random.normal(0, 15, (side, side, slices))
    return Volume(data.astype(np.int16)[None], np.diag([-PIXEL_MM, -PIXEL_MM, SLICE_MM, 1.0]))


def balance_head(network: SegmentationNetwork, scan: Volume, spec: PreprocessSpec) -> None:
    """Moves the biases of the head, so that every class is predicted somewhere:
    a map of one class would compare nothing.
    """
    with torch.no_grad():
        logits = network(torch.from_numpy(VolumeSlices(scan, spec).batch(0, 1)))
        network.get_parameter("head.bias").sub_(logits.mean(dim=(0, 2, 3)))


def write_pair(
    network: SegmentationNetwork, precision: str, size: int, scan: Volume, folder: Path
) -> tuple[Path, Path]:
    """The ordinary and the whole artefact of a network, as `attunet export` builds them.

    Example:
        >>> sliced, whole = write_pair(network, "fp32", 192, scan, Path("artefacts"))  # doctest: +SKIP
    """
    spec = spec_of(scan, size)
    calibration = VolumeSlices(scan, spec).batch(0, min(CALIBRATION_SLICES, scan.shape[2]))
    count = sum(p.numel() for p in network.parameters())
    paths = []
    for whole in (False, True):
        about = Artefact(
            name="timed",
            precision=precision,
            preprocessing=Preprocessing(spec),
            classes=CHAOS_MR,
            num_parameters=count,
            outputs=("labels",) if whole else ("logits",),
            whole=whole,
        )
        graph = graph_of(network, about, lambda _: calibration)
        paths.append(folder / f"{precision}-{size}{'-whole' if whole else ''}.onnx")
        paths[-1].write_bytes(write_artefact(graph.SerializeToString(), about))
    return paths[0], paths[1]


def table(results: Json) -> str:
    return table_with_skipped(results, COLUMNS)


def main() -> None:
    parser = program_parser("A whole graph beside the slice graph, timed in turns on one scan.")
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", choices=list(MODELS), default="attention_unet")
    parser.add_argument("--width", type=int, help="channels of the finest level, 16 by default, on a GPU 64")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[192, 256], help="of the network's slices, 192 and 256 by default"
    )
    parser.add_argument(
        "--precisions", nargs="+", choices=["fp32", "fp16", "int8"], help="all by default, on a GPU fp32 and fp16"
    )
    parser.add_argument("--slices", type=int, default=30, help="of the scan, 30 by default")
    parser.add_argument(
        "--enlarged",
        type=float,
        default=1.5,
        help="pixels of the scan along a side for one of the network's, 1.5 by default",
    )
    parser.add_argument("--threads", dest="num_threads", type=int, help="of the CPU, the runtime's choice by default")
    parser.add_argument("--runs", type=int, default=10, help="timed runs of each form, 10 by default")
    run_program("inference.whole", parser, lambda options: measure(**choices(options)), table)


if __name__ == "__main__":
    main()
