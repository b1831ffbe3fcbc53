"""Options and libraries of the GPU providers, so far as they can be checked without a GPU."""

import hashlib
import os
import sys
from pathlib import Path

import pytest

from attunet.errors import RunError
from attunet.export.runtime.backends import gpu_libraries
from attunet.export.runtime.backends.cuda_options import cuda_options, tensorrt_options
from attunet.export.runtime.backends.gpu_libraries import preload, without_cudnn_messages


def test_cudnns_messages_are_dropped_and_others_stay(capfd: pytest.CaptureFixture[str]) -> None:
    with without_cudnn_messages():
        os.write(2, b"CUDNN_BACKEND_API_FAILED: No execution plans support the graph.\n")
        os.write(2, b'\n{"engineId":-1,"smVersion":900,"knobChoices":{}}\n\n\x1b[m\n')
        os.write(
            2,
            b"\x1b[0;93m[W:onnxruntime:Default, conv.cc:426 UpdateState] OP Conv(a) running in Fallback mode.\x1b[m\n",
        )
        print("another thread's warning", file=sys.stderr)
    print("afterwards", file=sys.stderr)
    assert capfd.readouterr().err == "another thread's warning\nafterwards\n"


def test_messages_come_out_after_an_error_too(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), without_cudnn_messages():
        print(os.write(2, b"a line\n") // 0)
    assert capfd.readouterr().err == "a line\n"


def test_another_tensorrt_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "tensorrt_libs"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "libnvinfer.so.11").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(gpu_libraries, "library", lambda name: package)
    with pytest.raises(
        RunError, match=r"needs TensorRT 10 \(libnvinfer\.so\.10\), installed is .*pip install 'attunet\[tensorrt\]'"
    ):
        preload("tensorrt")


def test_float32_stays_float32() -> None:
    assert cuda_options("fp32")["use_tf32"] == 0
    assert cuda_options("fp16")["prefer_nhwc"] == 1


def test_the_whole_hash_of_an_artefact_names_the_folder_of_its_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files that share the beginning of a hash can be made; the engine of one would run for the other."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = Path(str(tensorrt_options("fp16", b"an artefact")["trt_engine_cache_path"]))
    assert (folder.is_dir(), folder.name) == (True, hashlib.sha256(b"an artefact").hexdigest())


def test_engines_need_no_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", str)  # as for a user without a home
    assert tensorrt_options("fp16", b"an artefact") == {"trt_fp16_enable": 1}
