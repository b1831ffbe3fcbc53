"""The runtime predicts what the network predicts, from any thread, and never on a provider that was not chosen."""

import dataclasses
import json
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest

from attunet.errors import InputError, RunError
from attunet.export.runtime.backends.cpu import SessionBackend
from attunet.export.runtime.input_checks import UntrainedInputWarning
from attunet.export.runtime.segmenter import Segmenter
from attunet.volumes.predict import predict_prepared
from attunet.volumes.slices import VolumeSlices
from attunet.volumes.spec import LARGEST, Postprocessing, Preprocessing
from attunet.volumes.training_ranges import TrainingRanges
from attunet.volumes.volume import Volume


@pytest.fixture(scope="module")
def segmenter(artefact):
    return Segmenter(artefact, num_threads=1)


@pytest.fixture(scope="module")
def variant(save_artefact):
    """A segmenter of the small artefact with other metadata, or of another graph."""
    return lambda *graph, **changes: Segmenter(save_artefact("model.onnx", *graph, **changes), num_threads=1)


def _slices(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def _volume(seed: int = 0, shape=(50, 61, 4)) -> Volume:
    data = np.random.default_rng(seed).normal(100, 30, (1, *shape)).astype(np.float32)
    return Volume(data, np.diag([-1.5, -1.5, 5.0, 1.0]))


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (5, 1, 16, 16), (2, 1, 48, 80)])
def test_outputs_are_those_of_the_network_for_any_batch_and_multiple_of_16(segmenter, network, shape):
    import torch

    slices = _slices(*shape)
    with torch.no_grad():
        logits, maps = network.with_attention(torch.from_numpy(slices))
    names = ("labels", "probabilities", *segmenter.metadata.attention_outputs)
    labels, probabilities, *attention = segmenter.run(names, slices)
    # The order of additions depends on the number of threads
    np.testing.assert_allclose(segmenter.logits(slices), logits.numpy(), atol=3e-5)
    np.testing.assert_array_equal(labels, logits.argmax(1).numpy())
    assert labels.dtype == np.uint8
    np.testing.assert_allclose(probabilities, logits.softmax(1).numpy(), atol=1e-5)
    for ours, theirs in zip(attention, maps, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 64, 60), (1, 2, 64, 64), (0, 1, 64, 64), (1, 1, 0, 64), (64, 64)])
def test_slices_of_another_shape_are_an_input_error(segmenter, shape):
    with pytest.raises(InputError, match=r"slices must be \(N, 1, H, W\)"):
        segmenter.logits(np.zeros(shape, np.float32))


def test_an_output_that_was_not_exported_is_an_input_error(segmenter):
    with pytest.raises(InputError, match="chosen at export"):
        segmenter.run(("attention_9",), _slices(1, 1, 16, 16))


def test_many_threads_get_the_answers_of_one(segmenter):
    batches = [_slices(2, 1, 32, 32, seed=seed) for seed in range(24)]
    alone = [segmenter.logits(batch) for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        for expected, got in zip(alone, pool.map(segmenter.logits, batches), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_threads_that_load_at_once_leave_the_output_where_it_was(monkeypatch):
    """The second to begin took the first one's place for the process's own, and left it there at its end."""
    onnxruntime, outputs, both = pytest.importorskip("onnxruntime"), [], threading.Barrier(2, timeout=20)

    class Session:
        def __init__(self, *_: object, **__: object) -> None:
            both.wait()
            outputs.append(sys.stdout)

        def get_inputs(self) -> list[object]:
            return []

        get_outputs = get_inputs

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    before = sys.stdout
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: SessionBackend(b"", None), range(2)))
    assert [*outputs, sys.stdout] == [before] * 3


def test_array_is_the_volume_of_that_orientation(segmenter):
    volume = _volume()  # axes run to left, posterior, superior
    expected = segmenter.predict_volume(volume)
    assert len(np.unique(expected)) > 1, "the test needs a prediction with structure"
    np.testing.assert_array_equal(segmenter.predict(volume.data[0], (1.5, 1.5, 5.0), orientation="LPS"), expected)
    flipped = np.ascontiguousarray(volume.data[0][::-1, ::-1])
    np.testing.assert_array_equal(segmenter.predict(flipped, (1.5, 1.5, 5.0))[::-1, ::-1], expected)


@pytest.mark.parametrize(
    ("shape", "spacing", "orientation", "reason"),
    [
        ((4, 4), (1, 1, 1), "RAS", "data"),
        ((4, 4, 4), (1, 0, 1), "RAS", "spacing"),
        ((4, 4, 4), (1, 1, 1), "RAP", "orientation"),
        ((4, 4, 4), (1, 1, 1), None, "orientation"),
        ((4, 4, 4), 1.0, "RAS", "spacing"),
        ((4, 4, 4), ("a", 1, 1), "RAS", "spacing"),
    ],
)
def test_impossible_array_is_an_input_error(segmenter, shape, spacing, orientation, reason):
    with pytest.raises(InputError, match=f"^{reason}: "):
        segmenter.predict(np.zeros(shape, np.float32), spacing, orientation=orientation)


@pytest.mark.parametrize(
    "data",
    [
        [[[1.0]]],
        np.zeros((4, 4, 4), bool),
        np.zeros((4, 4, 4), complex),
        np.zeros((4, 4, 4), object),
        np.full((4, 4, 4), "a"),
        np.ma.masked_less(np.zeros((4, 4, 4)), 1),
    ],
    ids=["list", "bool", "complex", "object", "text", "masked"],
)
def test_data_that_are_no_numbers_are_an_input_error(segmenter, data):
    with pytest.raises(InputError, match=r"^data: must be a NumPy array of integers or floats, without a mask, got "):
        segmenter.predict(data, (1, 1, 1))


def test_file_is_segmented_on_its_own_grid(segmenter, tmp_path):
    volume = _volume()
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(volume.data[0], volume.affine), path)
    prediction = segmenter.predict_file(path)
    np.testing.assert_array_equal(prediction.indices, segmenter.predict_volume(volume))
    assert prediction.volume.shape == volume.shape


def test_file_that_does_not_suit_is_named(segmenter, tmp_path):
    path = tmp_path / "scan.nii"
    with pytest.raises(InputError, match=r"scan\.nii: no such file"):
        segmenter.predict_file(path)
    nib.save(nib.Nifti1Image(_volume().data[0], np.diag([1e-4, 1e5, 1, 1])), path)
    with pytest.raises(InputError, match=r"scan\.nii: volume: a slice of at most"):
        segmenter.predict_file(path)


def test_memory_holds_one_batch_at_a_time(segmenter, monkeypatch):
    seen = []
    logits = segmenter.logits
    monkeypatch.setattr(segmenter, "logits", lambda slices: seen.append(len(slices)) or logits(slices))
    volume = _volume(shape=(20, 20, 30))
    np.testing.assert_array_equal(segmenter.predict_volume(volume), segmenter.predict_volume(volume, batch_size=30))
    assert max(seen[:-1]) == 8


def test_largest_component_is_kept_where_the_metadata_say_so(segmenter, variant):
    from attunet.volumes.postprocess import postprocess

    volume = _volume()
    every = segmenter.predict_volume(volume)
    kept = variant(preprocessing=Preprocessing(segmenter.spec, LARGEST)).predict_volume(volume)
    np.testing.assert_array_equal(kept, postprocess(every, 5, volume.spacing, LARGEST))
    assert (kept != every).any()
    cut = variant(preprocessing=Preprocessing(segmenter.spec, Postprocessing(True, 2.0))).predict_volume(volume)
    np.testing.assert_array_equal(cut, postprocess(every, 5, volume.spacing, Postprocessing(True, 2.0)))
    assert (cut != kept).any()


def test_fixed_size_takes_smaller_slices_and_refuses_larger_ones(variant, network, metadata):
    from attunet.export.build.graph import export_graph

    graph = export_graph(network, 1, ("logits",), (64, 80)).SerializeToString()
    fixed = variant(graph, outputs=("logits",), height=64, width=80)
    small = Volume(_volume().data, np.diag([1.6, 1.6, 5, 1]))  # 64 x 64 after padding
    assert fixed.predict_volume(small).shape == small.shape
    with pytest.raises(InputError, match="height 64 and width 80"):
        fixed.logits(_slices(1, 1, 64, 64))
    with pytest.raises(InputError, match="64 × 80"):
        fixed.predict_volume(_volume(shape=(50, 100, 2)))


def test_metadata_that_do_not_fit_the_graph_are_refused(variant, metadata):
    wider = Preprocessing(dataclasses.replace(metadata.spec, context_slices=3))
    for changes in ({"outputs": ("logits", "attention_7")}, {"preprocessing": wider}):
        with pytest.raises(InputError, match="does not match its metadata"):
            variant(**changes)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_provider_that_is_not_there_is_an_error_that_says_what_is_missing(artefact, provider):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(RunError, match=f"{provider}.*(missing|needs|did not load)"):
        Segmenter(artefact, provider=provider)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_openvino_gives_what_onnxruntime_gives(variant, graph, precision):
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    if precision != "fp32":
        from attunet.export.build.precision import to_half, to_int8
        from attunet.export.build.upsampling import upsample_by_pixel_shuffle

        model = pytest.importorskip("onnx").load_from_string(graph)
        if precision == "int8":
            upsample_by_pixel_shuffle(model)
        graph = (to_half(model) if precision == "fp16" else to_int8(model, _slices(4, 1, 48, 64))).SerializeToString()
    plain = variant(graph, precision=precision)
    other = Segmenter(plain.path, provider="openvino", num_threads=1)
    slices = _slices(3, 1, 48, 64)
    json.dumps(other.backend.options)  # they stand in results
    assert other.backend.options["INFERENCE_NUM_THREADS"] == 1
    # Fp16 is bf16 on some CPUs; int8 may round the other way
    tolerance = {"fp32": 1e-5, "fp16": 2e-2, "int8": 2e-2}[precision]
    names = ("logits", "attention_3")
    for one, expected in zip(other.run(names, slices), plain.run(names, slices), strict=True):
        assert np.abs(one - expected).mean() < tolerance


def test_openvino_without_its_package_says_what_to_install(artefact, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RunError, match=r"attunet\[openvino\]"):
        Segmenter(artefact, provider="openvino")


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        ({"provider": "coreml"}, "must be one of cpu, cuda, tensorrt, openvino"),
        ({"num_threads": 0}, "num_threads"),
        ({"cuda_graph": True}, "cuda_graph"),
    ],
)
def test_impossible_call_is_an_input_error(artefact, keywords, reason):
    with pytest.raises(InputError, match=reason):
        Segmenter(artefact, **keywords)


def test_int8_on_a_gpu_is_an_input_error(save_artefact):
    with pytest.raises(InputError, match="export fp16"):
        Segmenter(save_artefact(precision="int8"), provider="cuda")


def test_runtime_network_is_what_predict_prepared_takes(segmenter):
    volume = _volume()
    np.testing.assert_array_equal(
        predict_prepared(segmenter.logits, VolumeSlices(volume, segmenter.spec)), segmenter.predict_volume(volume)
    )


def test_an_input_unlike_the_training_warns_and_is_segmented_all_the_same(variant, segmenter, tmp_path):
    volume = _volume()
    spacing, extent = ((1.0, 2.0), (1.0, 2.0), (4.0, 6.0)), ((50.0, 120.0), (50.0, 120.0), (10.0, 30.0))
    known = variant(ranges=TrainingRanges("mm", spacing, extent, ((10.0, 60.0),), ((50.0, 150.0),)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = known.predict_volume(volume)
        segmenter.predict_volume(Volume(volume.data * 1000, volume.affine))  # an older artefact knows no ranges
    path = tmp_path / "thick.nii"
    nib.save(nib.Nifti1Image(volume.data[0], volume.affine @ np.diag([1, 1, 3, 1])), path)
    with pytest.warns(UntrainedInputWarning) as warned:
        prediction = known.predict_file(path)
    assert [f.rule for f in prediction.findings] == ["untrained-spacing", "untrained-size"]
    assert [str(warning.message) for warning in warned] == [f"{f.text} [{f.rule}]" for f in prediction.findings]
    np.testing.assert_array_equal(prediction.indices, expected)


def test_loading_a_graph_computes_none_of_its_constants(save_artefact, graph):
    """Twenty doublings of a constant of 4 KB have 4 GB, which nobody asks for."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(graph)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1024, np.float32), "constant-0"))
    for number in range(20):
        name = f"constant-{number}"
        model.graph.node.append(onnx.helper.make_node("Concat", [name, name], [f"constant-{number + 1}"], axis=0))
    model.graph.output.append(onnx.helper.make_tensor_value_info("constant-20", onnx.TensorProto.FLOAT, None))
    path = save_artefact("model.onnx", model.SerializeToString())
    code = (
        "import sys; from attunet.export.runtime.segmenter import Segmenter; "
        "from attunet.system.environment import peak_resident_mb; "
        "Segmenter(sys.argv[1], num_threads=1); print(peak_resident_mb())"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=120)
    assert float(done.stdout) < 1000
