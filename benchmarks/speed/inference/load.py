"""Requests to a server that runs: generated scans, some of them broken, each answer compared with a file."""

import gzip
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np

from attunet.errors import RunError

ATTUNET = (sys.executable, "-P", "-m", "attunet.launch.cli")


@dataclass(frozen=True)
class Answer:
    """The server's answer to one scan."""

    seconds: float
    memory_mb: float  # the server's resident memory after it
    is_broken: bool  # the scan
    differ: float  # share of voxels whose labels are not those of `attunet predict`
    wrong: str  # what is wrong with it; empty for a right one


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
) -> tuple[list[Answer], float]:
    """Sends `count` scans from as many threads as there are clients, a share of them broken, after one that does not
    count. Returns the answers, and the seconds of all of them together. expected: the file that `attunet predict` wrote
    for each of `paths`, of whose voxels the share `tolerance` may differ.

    Example:
        >>> send(url, "model", [scan], {scan: labels}, count=9, clients=2, broken=0, tolerance=0)  # doctest: +SKIP
    """
    every = round(1 / broken) if broken else count + 1
    bad = broken_scans(paths[0].read_bytes())
    bodies = {path: path.read_bytes() for path in paths}

    def one(http: httpx.Client, number: int) -> Answer:
        is_bad, path = number % every == every - 1, paths[number % len(paths)]
        began = time.perf_counter()
        response = http.post(f"/v1/models/{model}/segment", content=bad[number % len(bad)] if is_bad else bodies[path])
        seconds, status = time.perf_counter() - began, response.status_code
        differ = 0.0 if is_bad or status != 200 else _difference(response.content, expected[path])
        is_right = 400 <= status < 500 if is_bad else status == 200 and differ <= tolerance
        wrong = "" if is_right else f"request {number} ({'broken' if is_bad else path.name}): status {status}"
        return Answer(seconds, _memory_mb(http), is_bad, differ, wrong)

    with httpx.Client(base_url=url, timeout=600, limits=httpx.Limits(max_connections=clients)) as http:
        one(http, 0)
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as threads:
            answers = list(threads.map(partial(one, http), range(count)))
        return answers, time.perf_counter() - began


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
