"""Two C++ programs, with ONNX Runtime and with OpenVINO, compute the runtime's labels from a whole artefact.

ONNX Runtime's headers are in no wheel: `.ci/onnxruntime-headers build/onnxruntime-headers` puts Debian's where they are
looked for. The library is the wheel's.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from attunet.classes import CHAOS_MR
from attunet.export.runtime.segmenter import Segmenter
from attunet.volumes.oriented_volume import OrientedVolume
from attunet.volumes.volume import Volume

pytest.importorskip("onnx")

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[3]
HEADERS = "onnxruntime_cxx_api.h"


@dataclass(frozen=True)
class Build:
    """A program: its source, the provider that it uses, the folder of its headers, and its library."""

    source: Path
    provider: str
    include: Path
    library: Path


def with_onnxruntime(folder: Path) -> Build:
    package = Path(pytest.importorskip("onnxruntime").__file__).parent
    fetched = ROOT / "build/onnxruntime-headers/usr/include/onnxruntime"
    places = [os.environ.get("ONNXRUNTIME_INCLUDE", ""), "/usr/include/onnxruntime", fetched]
    include = next((Path(place) for place in places if place and (Path(place) / HEADERS).is_file()), None)
    libraries = sorted((package / "capi").glob("libonnxruntime.so.*"))
    if include is None or not libraries:
        pytest.skip(
            "no headers of ONNX Runtime (.ci/onnxruntime-headers build/onnxruntime-headers), or a wheel without its "
            "library"
        )
    library = folder / "libonnxruntime.so.1"  # the name that the library calls itself by
    library.symlink_to(libraries[0])
    return Build(HERE / "whole_client.cpp", "cpu", include, library)


def with_openvino(folder: Path) -> Build:
    package = Path(pytest.importorskip("openvino").__file__).parent
    libraries = sorted((package / "libs").glob("libopenvino.so*"))
    if not libraries or not (package / "include").is_dir():
        pytest.skip("an openvino without headers")
    return Build(HERE / "whole_client_openvino.cpp", "openvino", package / "include", libraries[0])


@pytest.mark.parametrize("make", [with_onnxruntime, with_openvino])
def test_a_plain_program_in_cpp_gives_the_same_labels(
    tmp_path: Path, whole: Path, make: Callable[[Path], Build]
) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    build, program = make(tmp_path), tmp_path / "segment"
    link = [str(build.library), f"-Wl,-rpath,{build.library.parent}"]
    subprocess.run(
        ["g++", "-O1", "-std=c++17", f"-I{build.include}", build.source, "-o", program, *link], check=True, timeout=300
    )
    segmenter = Segmenter(whole, provider=build.provider, num_threads=1)
    data = np.random.default_rng(0).normal(300, 60, (1, 60, 52, 11)).astype(np.int16)
    prepared = segmenter.prepare(Volume(data, np.diag([-1.5, -1.5, 6.0, 1.0])))
    assert isinstance(prepared, OrientedVolume)
    prepared.data.tofile(tmp_path / "volume.f32")
    words = [*prepared.data.shape[1:], *prepared.spacing]
    command = [program, whole, tmp_path / "volume.f32", *words, tmp_path / "labels.u8"]
    done = subprocess.run(list(map(str, command)), check=True, timeout=120, capture_output=True, text=True)
    labels = np.fromfile(tmp_path / "labels.u8", dtype=np.uint8).reshape(prepared.data.shape[1:])
    expected = segmenter.segment_oriented(prepared.data, prepared.spacing)
    assert len(np.unique(expected)) > 1
    assert (labels != expected).mean() < 1e-4
    assert len(build.source.read_text().splitlines()) <= 60
    if build.provider == "cpu":
        counts = [
            f"{name}: {(labels == value).sum()}" for name, value in zip(CHAOS_MR.names, CHAOS_MR.values, strict=True)
        ]
        assert done.stdout.splitlines() == counts
    command[1] = tmp_path / "none.onnx"
    wrong = subprocess.run(list(map(str, command)), check=False, timeout=120, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout) == (1, "")
