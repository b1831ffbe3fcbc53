"""The server under load:
`python -m attunet.benchmarks.speed.inference.serving MODEL.onnx [--scans 200] [--clients 8] [--broken 0.1]`.

Starts `attunet serve` on loopback and sends it generated scans, some of them broken, from one client and from several
at once. Every answer is compared with the file that `attunet predict` writes for that scan. The baseline is
`attunet predict FOLDER` on the same scans and cores, before and after. Server and clients share the cores.
"""

import logging
import re
import statistics
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from attunet.benchmarks.evaluation.results_table import Json, format_table
from attunet.benchmarks.speed.inference.load import ATTUNET, Answer, running_server, send, write_scan
from attunet.benchmarks.speed.program import choices, percentile_fields, program_parser, run_program
from attunet.errors import RunError
from attunet.system.environment import environment
from attunet.system.private_folder import PrivateFolder

logger = logging.getLogger(__name__)

DISTINCT = 10  # scans that are made; each is sent several times
ON_GPU_DIFFER = 1e-3  # share of voxels: slices of several scans share batches there, and sums then round otherwise


def measure(
    model: Path,
    *,
    scans: int,
    clients: int,
    broken: float,
    side: int,
    slices: int,
    options: list[str],
    provider: str,
) -> Json:
    """Rates, latencies and memory as JSON values; arguments are the program's options. RunError for a wrong answer.

    Example:
        >>> load = {"scans": 40, "clients": 8, "broken": 0.1, "side": 128, "slices": 30}
        >>> measure(model, **load, options=[], provider="cpu")["ratio"]  # doctest: +SKIP
    """
    tolerance = ON_GPU_DIFFER if provider != "cpu" else 0.0
    options = [*options, "--provider", provider]
    with PrivateFolder() as temporary:
        folder = temporary.path
        names = [folder / "scans" / f"scan-{number:02d}.nii.gz" for number in range(DISTINCT)]
        paths = [write_scan(path, number, side, slices) for number, path in enumerate(names)]
        rates = [_predict_folder(model, folder, "first", provider)]
        expected = {path: (folder / "first" / path.name).read_bytes() for path in paths}
        with running_server(model, folder / "temp", options) as url:
            requests = partial(send, url, model.stem, paths, expected, tolerance=tolerance)
            logger.info("one client")
            alone, _ = requests(count=2 * DISTINCT, clients=1, broken=0)
            logger.info("%d clients", clients)
            together, seconds = requests(count=scans, clients=clients, broken=broken)
        rates.append(_predict_folder(model, folder, "second", provider))
        left = [str(path.relative_to(folder)) for path in (folder / "temp").rglob("*")]
    wrong = [one.wrong for one in (*alone, *together) if one.wrong]
    wrong += [f"left in the temporary folder: {name}" for name in left]
    if wrong:
        raise RunError(f"{len(wrong)} answers are wrong, the first: {wrong[0]}")
    refused = sum(one.is_broken for one in together)
    served, baseline = (len(together) - refused) / seconds, statistics.mean(rates)
    return {
        "scan": [side, side, slices],
        "options": options,
        "predict_folder_per_s": rates,
        "served_per_s": served,
        "ratio": served / baseline,
        "provider": provider,
        "largest_share_that_differs": max(one.differ for one in (*alone, *together)),
        "one_client": _latency(alone),
        "clients": {"number": clients, **_latency(together), "refused": refused},
        "memory_mb": _memory([one.memory_mb for one in together]),
        "environment": environment(),
    }


def _latency(answers: Sequence[Answer]) -> Json:
    """Percentiles of the scans that are not broken."""
    seconds = [one.seconds for one in answers if not one.is_broken]
    return {**percentile_fields(seconds, "p{}_s", (50, 99)), "requests": len(seconds)}


def _memory(megabytes: Sequence[float]) -> Json:
    """Resident memory around the 50th scan and the last, each the median of ten, and the largest."""
    at_50, at_end = (statistics.median(part[-10:]) for part in (megabytes[:50], megabytes))
    return {"at_50": at_50, "at_end": at_end, "largest": max(megabytes)}


def _predict_folder(model: Path, folder: Path, name: str, provider: str) -> float:
    """Scans per second of `attunet predict FOLDER`, from its first read to its last write."""
    done = subprocess.run(
        [*ATTUNET, "predict", str(model), str(folder / "scans"), str(folder / name), "--provider", provider],
        capture_output=True,
        text=True,
        check=True,
    )
    rate = re.search(r"segmented \(([\d.]+) a minute\)", done.stdout)
    assert rate is not None, done.stdout
    return float(rate[1]) / 60


def table(results: Json) -> str:
    memory, clients = results["memory_mb"], results["clients"]
    predicted = statistics.mean(results["predict_folder_per_s"])
    columns = {"": "{name}", "requests": "{requests}", "p50 s": "{p50_s:.2f}", "p99 s": "{p99_s:.2f}"}
    rows = [{"name": "1 client", **results["one_client"]}, {"name": f"{clients['number']} clients", **clients}]
    return "\n".join(
        [
            format_table(rows, columns),
            f"served {results['served_per_s']:.2f} scans/s, predict FOLDER {predicted:.2f}: "
            f"ratio {results['ratio']:.2f}; {clients['refused']} broken scans refused",
            f"{results['largest_share_that_differs']:.1e} of an answer's voxels differ from predict's at most",
            f"resident MB: {memory['at_50']:.0f} at the 50th scan, {memory['at_end']:.0f} at the last, "
            f"{memory['largest']:.0f} at most",
        ]
    )


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument("model", type=Path, help="an artefact")
    parser.add_argument("--provider", default="cpu", help="of the server and of predict, cpu by default")
    parser.add_argument("--scans", type=int, default=200, help="sent by all clients together, 200 by default")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--broken", type=float, default=0.1, help="share of broken scans")
    parser.add_argument("--side", type=int, default=256, help="of a scan's slices in pixels")
    parser.add_argument("--slices", type=int, default=30, help="of a scan")
    parser.add_argument(
        "--serve",
        dest="options",
        type=str.split,
        default=[],
        metavar="OPTIONS",
        help="options of attunet serve, in one text",
    )
    run_program("inference.serving", parser, lambda options: measure(**choices(options)), table)


if __name__ == "__main__":
    main()
