"""Requests to a server that runs: generated scans, some of them broken, each answer compared with a file."""

import gzip
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

import httpx
import nibabel as nib
import numpy as np

from attunet.errors import RunError

ATTUNET = (sys.executable, "-P", "-m", "attunet.launch.cli")


@dataclass(eq=False)
class Load:
    """Requests that were sent."""

    seconds: list[float] = field(default_factory=list)  # of the good ones
    wrong: list[str] = field(default_factory=list)  # a text for each wrong answer
    refused: int = 0
    # Share of voxels whose labels are not those of `attunet predict`, of every good answer
    differ: list[float] = field(default_factory=lambda: [0.0])
    memory_mb: list[float] = field(default_factory=list)  # the server's resident memory after each
    total_s: float = 0.0

    @property
    def figures(self) -> dict[str, float]:
        p50, p99 = (float(p) for p in np.percentile(self.seconds, (50, 99)))
        return {"p50_s": p50, "p99_s": p99, "requests": len(self.seconds)}

    def memory(self, scans: int) -> dict[str, float]:
        """Resident memory around the 50th scan and the last, each the median of ten, and the largest."""
        at_50, at_end = (
            statistics.median(self.memory_mb[max(0, end - 10) : end])
            for end in (min(number, len(self.memory_mb)) for number in (50, scans))
        )
        return {"at_50": at_50, "at_end": at_end, "largest": max(self.memory_mb)}


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
            if match := re.match(r"serving at (\S+)", line):
                break
        else:
            raise RunError(f"the server did not start: {' '.join(lines)[-500:]}")
        threading.Thread(target=process.stdout.read, daemon=True).start()  # or else its pipe fills
        yield match[1]
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
    tolerance: float,
) -> Load:
    """Sends `count` scans from as many threads as there are clients, a share of them broken.

    Args:
        expected: the file that `attunet predict` wrote for each of `paths`.
        tolerance: share of an answer's voxels that may differ from the expected file.

    Example:
        >>> send(url, "model", [scan], {scan: labels}, count=9, clients=2, broken=0, tolerance=0)  # doctest: +SKIP
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
                name = "broken" if is_bad else path.name
                load.wrong.append(f"request {number} ({name}): status {response.status_code}")

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


def _memory_mb(http: httpx.Client) -> float:
    match = re.search(r"^process_resident_memory_bytes (\S+)", http.get("/metrics").text, re.MULTILINE)
    return float(match[1]) / 1e6 if match else float("nan")
