"""The model repository is what Triton's own description of its format accepts."""

import dataclasses
import errno
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from attunet.errors import InputError
from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.artefact_file import load_artefact
from attunet.export.artefact.graph_tensors import DISAGREEMENT

pytest.importorskip("onnx")
pytest.importorskip("torch")
text_format = pytest.importorskip("google.protobuf.text_format")

from attunet.export.build.triton_repository import triton_config, write_triton_repository  # noqa: E402


@pytest.fixture(scope="module")
def description() -> Any:
    """Triton's model_config.proto, compiled, from its Python client; the client's package itself would import gRPC."""
    package = importlib.util.find_spec("tritonclient")
    if package is None or not package.submodule_search_locations:
        pytest.skip("tritonclient is not installed")
    file = Path(package.submodule_search_locations[0]) / "grpc/model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _parsed(description: Any, text: str) -> Any:
    return text_format.Parse(text, description.ModelConfig())  # raises for an unknown field or value


def test_slices_are_batched_and_tensors_are_the_graph_s(tmp_path: Path, artefact: Path, description: Any) -> None:
    import onnx

    about, data = load_artefact(artefact)
    folder = write_triton_repository(data, about, tmp_path / "models", "organs")
    assert (folder / "1/model.onnx").read_bytes() == data
    config = _parsed(description, (folder / "config.pbtxt").read_text())
    assert (config.name, config.backend, config.max_batch_size) == ("organs", "onnxruntime", 64)
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 16, 32]
    assert config.instance_group[0].kind == description.ModelInstanceGroup.KIND_GPU
    graph = onnx.load_from_string(data).graph
    kinds = {onnx.TensorProto.FLOAT: description.TYPE_FP32, onnx.TensorProto.UINT8: description.TYPE_UINT8}
    for ours, theirs in ((config.input, graph.input), (config.output, graph.output)):
        assert [one.name for one in ours] == [one.name for one in theirs]
        for one, value in zip(ours, theirs, strict=True):
            sides = value.type.tensor_type.shape.dim[1:]  # Triton adds the batch itself
            assert one.data_type == kinds[value.type.tensor_type.elem_type]
            assert list(one.dims) == [side.dim_value or -1 for side in sides]


def test_a_full_disk_is_named_and_leaves_nothing(
    tmp_path: Path, artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about, data = load_artefact(artefact)

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # without the file's name, as writing gives it

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: .*1/model.onnx'"):
        write_triton_repository(data, about, tmp_path / "models", "organs")
    assert list(tmp_path.iterdir()) == []


def test_all_files_are_on_the_disk_before_the_model_has_its_name(
    tmp_path: Path, metadata: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a folder with the name is whole: another call refuses to replace it."""
    synced, fsync = [], os.fsync

    def note(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}").rpartition("/")[2].rpartition(".partial.")[2]
        synced.append((name, (tmp_path / "models/organs").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_triton_repository(b"model", metadata, tmp_path / "models", "organs")
    before = [name for name, has_name in synced if not has_name]
    assert {"model.onnx", "1", "config.pbtxt", "organs"} <= set(before)
    assert synced[-1] == ("models", True)


def test_a_whole_artefact_takes_one_volume_and_int8_runs_on_a_cpu(metadata: Artefact, description: Any) -> None:
    whole = dataclasses.replace(metadata, whole=True, outputs=("labels",), precision="int8")
    config = _parsed(description, triton_config(whole, "volumes"))
    assert config.max_batch_size == 0
    assert [(one.name, list(one.dims)) for one in config.input] == [("volume", [1, -1, -1, -1]), ("spacing", [3])]
    assert [(one.name, one.data_type) for one in config.output] == [("labels", description.TYPE_UINT8)]
    assert config.instance_group[0].kind == description.ModelInstanceGroup.KIND_CPU
    assert not config.HasField("dynamic_batching")


def test_the_disagreement_of_an_ensemble_has_one_channel(metadata: Artefact, description: Any) -> None:
    config = _parsed(
        description, triton_config(dataclasses.replace(metadata, outputs=("logits", DISAGREEMENT)), "organs")
    )
    assert [list(one.dims) for one in config.output] == [[5, -1, -1], [1, -1, -1]]


def test_cuda_options_are_those_of_the_runtime(metadata: Artefact, description: Any) -> None:
    from attunet.export.runtime.backends.cuda_options import cuda_options

    config = _parsed(description, triton_config(dataclasses.replace(metadata, precision="fp16"), "organs"))
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "cuda"
    assert dict(accelerator.parameters) == {key: str(value) for key, value in cuda_options("fp16").items()}


@pytest.mark.parametrize("name", ["", "../organs", "a/b", ".hidden", 'a"b', "a" * 200])
def test_a_name_that_triton_or_a_path_could_not_take_is_refused(tmp_path: Path, metadata: Artefact, name: str) -> None:
    with pytest.raises(InputError, match="--triton"):
        write_triton_repository(b"model", metadata, tmp_path / "models", name)
    assert not (tmp_path / "models").exists()


def test_an_existing_model_is_not_replaced(tmp_path: Path, metadata: Artefact) -> None:
    folder = write_triton_repository(b"model", metadata, tmp_path, "organs")
    with pytest.raises(InputError, match="exists already"):
        write_triton_repository(b"model", metadata, tmp_path, "organs")
    assert sorted(path.name for path in folder.iterdir()) == ["1", "config.pbtxt"]
    assert [path.name for path in tmp_path.iterdir()] == ["organs"]


def test_a_folder_of_another_product_is_no_repository(tmp_path: Path, metadata: Artefact) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="holds a store; name another folder for a model repository"):
        write_triton_repository(b"model", metadata, tmp_path, "organs")
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_repository_that_cannot_be_made_is_refused_by_its_name(metadata: Artefact) -> None:
    with pytest.raises(InputError, match=r"^/proc/repository.*: cannot be written: "):
        write_triton_repository(b"model", metadata, Path("/proc/repository"), "model")
