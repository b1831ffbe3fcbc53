"""The server under load:
`python -m attunet.benchmarks.speed.inference.serving MODEL.onnx [--scans 200] [--clients 8] [--broken 0.1]`.

Starts `attunet serve` on loopback and sends it generated scans, some of them broken, from one client and from several
at once. Every answer is compared with the file that `attunet predict` writes for that scan. The baseline is
`attunet predict FOLDER` on the same scans and cores, before and after. Server and clients share the cores.
"""

import argparse
import gzip
import logging
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import nibabel as nib
import numpy as np

from attunet.benchmarks.evaluation.results_table import aligned
from attunet.benchmarks.speed.program import add_output_options, run_program
from attunet.errors import RunError
from attunet.system.environment import environment

logger = logging.getLogger(__name__)

DISTINCT = 10  # scans that are made; each is sent several times
ON_GPU_DIFFER = 1e-3  # share of voxels: slices of several scans share batches there, and sums then round otherwise
ATTUNET = (sys.executable, "-m", "attunet.launch.cli")


@dataclass(eq=False)
class Load:
    """Requests that were sent: seconds of the good ones, wrong answers, and the server's resident memory after each.

    differ: share of voxels whose labels are not those of `attunet predict`, of every good answer.
    """

    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    refused: int = 0
    differ: list[float] = field(default_factory=lambda: [0.0])
    memory_mb: list[float] = field(default_factory=list)
    total_s: float = 0.0

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.seconds, percent))


def measure(
    model: Path,
    *,
    scans: int,
    clients: int,
    broken: float,
    side: int,
    slices: int,
    options: list[str],
    provider: str = "cpu",
) -> dict[str, Any]:
    """Rates, latencies and memory as JSON values; RunError where an answer is wrong.

    Args:
        model: an artefact.
        scans: sent by all `clients` together, of which a share is `broken`.
        side: of a scan's slices in pixels. slices: of a scan.
        options: of `attunet serve`.
        provider: of the server and of `attunet predict`.

    Example:
        >>> measure(model, scans=40, clients=8, broken=0.1, side=128, slices=30, options=[])["ratio"]  # doctest: +SKIP
    """
    tolerance = ON_GPU_DIFFER if provider != "cpu" else 0.0
    options = [*options, "--provider", provider]
    with TemporaryDirectory(prefix="attunet-serving-") as temporary:
        folder = Path(temporary)
        paths = [
            write_scan(folder / "scans" / f"scan-{number:02d}.nii.gz", number, side, slices)
            for number in range(DISTINCT)
        ]
        rates = [_predict_folder(model, folder, "first", provider)]
        expected = {path: (folder / "first" / path.name).read_bytes() for path in paths}
        with running_server(model, folder / "temp", options) as url:
            logger.info("one client")
            alone = send(url, model.stem, paths, expected, count=2 * DISTINCT, clients=1, broken=0, tolerance=tolerance)
            logger.info("%d clients", clients)
            together = send(
                url, model.stem, paths, expected, count=scans, clients=clients, broken=broken, tolerance=tolerance
            )
        rates.append(_predict_folder(model, folder, "second", provider))
        left = [str(path.relative_to(folder)) for path in (folder / "temp").rglob("*")]
    wrong = alone.wrong + together.wrong + [f"left in the temporary folder: {name}" for name in left]
    if wrong:
        raise RunError(f"{len(wrong)} answers are wrong, the first: {wrong[0]}")
    served, baseline = len(together.seconds) / together.total_s, statistics.mean(rates)
    return {
        "scan": [side, side, slices],
        "options": options,
        "predict_folder_per_s": rates,
        "served_per_s": served,
        "ratio": served / baseline,
        "provider": provider,
        "largest_share_that_differs": max(*alone.differ, *together.differ),
        "one_client": {"p50_s": alone.percentile(50), "p99_s": alone.percentile(99), "requests": len(alone.seconds)},
        "clients": {
            "number": clients,
            "p50_s": together.percentile(50),
            "p99_s": together.percentile(99),
            "requests": len(together.seconds),
            "refused": together.refused,
        },
        "memory_mb": {
            "at_50": _memory_at(together, 50),
            "at_end": _memory_at(together, scans),
            "largest": max(together.memory_mb),
        },
        "environment": environment(),
    }


def _made_artefact(folder: Path, width: int, precision: str) -> Path:
    """An attention U-Net with random weights for slices of 192 × 192 pixels; needs torch."""
    from attunet.benchmarks.speed.inference.forms import fresh_network
    from attunet.benchmarks.speed.inference.whole_forms import balance_head, generated_scan, spec_of, write_pair

    network, scan = fresh_network("attention_unet", width=width), generated_scan(192, 3)
    balance_head(network, scan, spec_of(scan, 192))
    return write_pair(network, precision, 192, scan, folder)[0].rename(folder / "made.onnx")


def write_scan(path: Path, seed: int, side: int, slices: int) -> Path:
    """A generated scan of smooth spots and noise, int16, gzipped NIfTI."""
    random = np.random.default_rng(seed)
    coarse = random.normal(300, 120, (8, 8, slices))
    data = np.repeat(np.repeat(coarse, -(-side // 8), axis=0), -(-side // 8), axis=1)[:side, :side]
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image((data + random.normal(0, 15, data.shape)).astype(np.int16), np.diag([-1.5, -1.5, 5.0, 1.0]))
    nib.save(image, path)
    return path


def broken_scans(good: bytes) -> list[bytes]:
    """Bodies that a server must refuse: cut short, no scan at all, a damaged gzip, a header that promises too much."""
    header = bytearray(gzip.decompress(good)[:352])
    header[40:56] = np.array([3, 30000, 30000, 1000, 1, 1, 1, 1], "<i2").tobytes()
    return [
        good[: len(good) // 2],
        b"no scan " * 100,
        good[:200] + bytes(100) + good[300:],
        gzip.compress(bytes(header)),
        b"PK\x03\x04" + bytes(50),
    ]


@contextmanager
def running_server(model: Path, temp: Path, options: list[str]) -> Iterator[str]:
    """The address of a server that runs while the context is open, and is stopped by SIGTERM.
    RunError where it does not end with 0.
    """
    command = [*ATTUNET, "serve", str(model), "--port", "0", "--temp", str(temp), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line)
            if found := re.match(r"serving at (\S+)", line):
                break
        else:
            raise RunError(f"the server did not start: {' '.join(lines)[-500:]}")
        threading.Thread(target=process.stdout.read, daemon=True).start()  # or else its pipe fills
        yield found[1]
    finally:
        process.terminate()
        code = process.wait(60)
    if code:
        raise RunError(f"the server ended with {code}")


def send(
    url: str,
    model: str,
    paths: list[Path],
    expected: dict[Path, bytes],
    *,
    count: int,
    clients: int,
    broken: float,
    tolerance: float = 0.0,
) -> Load:
    """Sends `count` scans from as many threads as there are clients, a share of them broken.

    tolerance: share of an answer's voxels that may differ from the expected file.
    """
    load, lock = Load(), threading.Lock()
    every = round(1 / broken) if broken else count + 1
    bad = broken_scans(paths[0].read_bytes())
    bodies = {path: path.read_bytes() for path in paths}

    def one(http: httpx.Client, number: int) -> None:
        is_bad, path = number % every == every - 1, paths[number % len(paths)]
        start = time.perf_counter()
        response = http.post(f"/v1/models/{model}/segment", content=bad[number % len(bad)] if is_bad else bodies[path])
        seconds, memory = time.perf_counter() - start, _memory_mb(http)
        differ = 0.0 if is_bad or response.status_code != 200 else _difference(response.content, expected[path])
        good = 400 <= response.status_code < 500 if is_bad else response.status_code == 200 and differ <= tolerance
        with lock:
            load.differ.append(differ)
            load.memory_mb.append(memory)
            load.refused += is_bad
            if not is_bad:
                load.seconds.append(seconds)
            if not good:
                load.wrong.append(
                    f"request {number} ({'broken' if is_bad else path.name}): status {response.status_code}"
                )

    with httpx.Client(base_url=url, timeout=600, limits=httpx.Limits(max_connections=clients)) as http:
        one(http, 0)
        load.seconds.clear()
        start = time.perf_counter()
        with ThreadPoolExecutor(clients) as threads:
            list(threads.map(partial(one, http), range(count)))
        load.total_s = time.perf_counter() - start
    return load


def _difference(got: bytes, expected: bytes) -> float:
    """Share of voxels whose labels differ, 0 for equal files and 1 for labels on another grid."""
    if got == expected:
        return 0.0
    first, second = (nib.Nifti1Image.from_bytes(gzip.decompress(content)) for content in (got, expected))
    if first.shape != second.shape or not np.array_equal(first.affine, second.affine):
        return 1.0
    return float(np.mean(np.asanyarray(first.dataobj) != np.asanyarray(second.dataobj)))


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


def _memory_mb(http: httpx.Client) -> float:
    found = re.search(r"^process_resident_memory_bytes (\S+)", http.get("/metrics").text, re.MULTILINE)
    return float(found[1]) / 1e6 if found else float("nan")


def _memory_at(load: Load, number: int) -> float:
    """Resident memory around a request: the median of ten."""
    end = min(number, len(load.memory_mb))
    return statistics.median(load.memory_mb[max(0, end - 10) : end])


def table(results: dict[str, Any]) -> str:
    """The figures as a plain table."""
    rows = [["", "requests", "p50 s", "p99 s"]]
    for name, figures in (
        ("1 client", results["one_client"]),
        (f"{results['clients']['number']} clients", results["clients"]),
    ):
        rows.append([name, str(figures["requests"]), f"{figures['p50_s']:.2f}", f"{figures['p99_s']:.2f}"])
    memory = results["memory_mb"]
    return "\n".join(
        [
            aligned(rows),
            f"served {results['served_per_s']:.2f} scans/s, predict FOLDER "
            f"{statistics.mean(results['predict_folder_per_s']):.2f}: "
            f"ratio {results['ratio']:.2f}; {results['clients']['refused']} broken scans refused",
            f"{results['largest_share_that_differs']:.1e} of an answer's voxels differ from predict's at most",
            (
                f"resident MB: {memory['at_50']:.0f} at the 50th scan, {memory['at_end']:.0f} at the last, "
                f"{memory['largest']:.0f} at most"
            ),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", help="an artefact; by default one with random weights is made")
    parser.add_argument("--width", type=int, default=16, help="of the network that is made, 16 by default")
    parser.add_argument(
        "--precision", choices=["fp32", "fp16", "int8"], default="fp32", help="of the artefact that is made"
    )
    parser.add_argument("--provider", default="cpu", help="of the server and of predict, cpu by default")
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--broken", type=float, default=0.1, help="share of broken scans")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--slices", type=int, default=30)
    parser.add_argument("--serve", default="", metavar="OPTIONS", help="options of attunet serve, in one text")
    add_output_options(parser)
    arguments = parser.parse_args()

    def call() -> dict[str, Any]:
        with TemporaryDirectory(prefix="attunet-served-") as made:
            return measure(
                arguments.model or _made_artefact(Path(made), arguments.width, arguments.precision),
                scans=arguments.scans,
                clients=arguments.clients,
                broken=arguments.broken,
                side=arguments.side,
                slices=arguments.slices,
                options=arguments.serve.split(),
                provider=arguments.provider,
            )

    run_program("inference.serving", arguments, call, table)


if __name__ == "__main__":
    main()
