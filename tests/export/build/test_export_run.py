"""From a run to an artefact: the content of the file, and refusals without a file."""

import dataclasses
import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from attunet.errors import InputError, RunError
from attunet.export.artefact.artefact_file import read_artefact
from attunet.export.artefact.signature import signature_of
from attunet.export.runtime.segmenter import Segmenter
from attunet.export.runtime.self_test import verify
from attunet.metrics.overlap import confusion, dice_from_confusion
from attunet.volumes.predict import predict_prepared
from attunet.volumes.slices import VolumeSlices

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

import traced_once  # noqa: E402

from attunet.export.build import export_run as onnx_export  # noqa: E402
from attunet.export.build import graph_of_run  # noqa: E402
from attunet.export.build.export_run import export_run  # noqa: E402
from attunet.export.build.graph import export_graph  # noqa: E402
from attunet.export.build.parity import Tolerance  # noqa: E402
from attunet.runs.load_run import load_run  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def _trace_once():
    """The one run's graph is traced once for every set of outputs, by torch alone; tracing takes seconds."""
    traced: dict = {}

    def export(network, channels, outputs, size=None, *, temperature=1.0):
        key = (tuple(outputs), size, temperature)
        if key not in traced:
            traced[key] = export_graph(network, channels, outputs, size, temperature=temperature).SerializeToString()
        return onnx.load_from_string(traced[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_of_run, "export_graph", export)
        patch.setattr(torch.onnx, "export", traced_once.trace)
        yield


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_run(run, out, license="test data")
    return out


def _operators(model) -> set[str]:
    return {node.op_type for node in model.graph.node}


def test_artefact_segments_as_the_run_and_says_so(exported, run, small_store):
    trained, segmenter = load_run(run), Segmenter(exported)
    about = segmenter.metadata
    assert about.dice_at_export["cases"] == "held out"
    assert list(about.dice_at_export["per_case"]) == trained.held_out
    assert about.dice_at_export["per_class"]["liver"] > 0.5, "the small training should find something"
    for case in trained.held_out:
        volume, truth = small_store.read_source(case)
        with torch.no_grad():
            network, finish = lambda s: trained.network(torch.from_numpy(s)).numpy(), trained.postprocessing
            expected = predict_prepared(network, VolumeSlices(volume, trained.spec), postprocessing=finish)
        indices = segmenter.predict_volume(volume)
        assert (indices != expected).mean() < 1e-4
        dice = dice_from_confusion(confusion(indices, truth, 5))[1:]
        assert list(about.dice_at_export["per_case"][case].values()) == pytest.approx(dice.tolist(), abs=1e-6)


def test_metadata_name_the_training_cases(exported, run, small_store):
    about, trained = read_artefact(exported), load_run(run)
    train, _ = small_store.split(0)
    assert about.training_cases == {name: small_store.case(name).image_sha256 for name in train}
    assert set(about.training_voxels) == {small_store.case(name).content_sha256 for name in train}
    assert (about.name, about.fold, about.step, about.license) == ("small-run", 0, trained.step, "test data")
    assert about.spec == small_store.spec
    assert about.classes == small_store.classes
    assert about.num_parameters == sum(p.numel() for p in trained.network.parameters())
    assert about.config["model"]["base_width"] == 8


def test_graph_has_one_input_no_batch_norm_and_dynamic_axes(exported):
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    assert not {op for op in _operators(model) if "Norm" in op}
    (slices,) = model.graph.input
    assert slices.name == "slices"
    sides = [d.dim_param or d.dim_value for d in slices.type.tensor_type.shape.dim]
    assert sides == ["batch", 1, "16*rows", "16*columns"]
    kinds = {o.name: o.type.tensor_type.elem_type for o in model.graph.output}
    assert kinds == {"labels": onnx.TensorProto.UINT8, "logits": onnx.TensorProto.FLOAT}


def test_the_file_names_nothing_of_the_exporting_machine(exported, run):
    data = exported.read_bytes()
    for secret in (str(run.parent), str(Path(__file__).parents[3]), "site-packages", str(Path.home())):
        assert secret.encode() not in data


def test_the_self_test_passes_and_a_changed_graph_fails_it(exported, tmp_path):
    assert verify(Segmenter(exported)).same_labels == 1
    assert verify(Segmenter(exported)).difference < 1e-4
    from attunet.export.artefact.artefact_file import load_artefact, write_artefact

    about, data = load_artefact(exported)
    graph = onnx.load_from_string(data)
    del graph.metadata_props[:]
    weights = onnx.numpy_helper.to_array(graph.graph.initializer[0])
    graph.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(1.1 * weights, graph.graph.initializer[0].name))
    other = tmp_path / "other.onnx"
    other.write_bytes(write_artefact(graph.SerializeToString(), about))
    with pytest.raises(RunError, match="computes other logits than at export: provider cpu: logits differ by"):
        verify(Segmenter(other))


def test_artefact_that_disagrees_is_refused_and_leaves_no_file(run, tmp_path, monkeypatch):
    def wrong(network, *arguments, **options):
        with torch.no_grad():
            network = type(network)(in_channels=1, num_classes=5, base_width=8).eval()
        return export_graph(network, *arguments, **options)

    monkeypatch.setattr(graph_of_run, "export_graph", wrong)
    line = r"on \d held out cases, before post-processing: mean Dice .* no file was written"
    with pytest.raises(RunError, match=line):
        export_run(run, tmp_path / "out" / "model.onnx")
    assert not (tmp_path / "out").exists()


def test_a_store_whose_names_have_changed_places_is_refused(run, small_store, tmp_path):
    """What the run was trained on would count as held out."""
    trained = load_run(run)
    exchanged = {trained.held_out[0]: min(trained.training_cases), min(trained.training_cases): trained.held_out[0]}
    moved = shutil.copytree(small_store.path, tmp_path / "store")
    manifest = json.loads((moved / "manifest.json").read_text())
    rows = {row["case"]: row for row in manifest["cases"]}
    hashes = {name: {key: value for key, value in row.items() if "sha256" in key} for name, row in rows.items()}
    for name, other in exchanged.items():
        rows[name] |= hashes[other]
    (moved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"its case (.*) is another scan, or another patient's, than \1 of "):
        export_run(run, tmp_path / "model.onnx", store=moved)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("key", ["label_files", "label_mapping"])
def test_a_store_with_other_masks_of_the_training_is_refused(run, small_store, tmp_path, key):
    moved = shutil.copytree(small_store.path, tmp_path / "store")
    manifest = json.loads((moved / "manifest.json").read_text())
    row = next(row for row in manifest["cases"] if row["case"] in load_run(run).training_cases)
    if key == "label_files":
        row["label_files"][0]["sha256"] = "corrected"
    else:
        row["label_mapping"] |= {"9": 1}
    (moved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"other masks than|reads its training cases in another way"):
        export_run(run, tmp_path / "model.onnx", store=moved)
    assert not (tmp_path / "model.onnx").exists()


def test_a_store_that_changed_otherwise_is_told(run, small_store, tmp_path, log_lines):
    """It may have other masks of the cases that were left out."""
    moved = shutil.copytree(small_store.path, tmp_path / "store")
    manifest = json.loads((moved / "manifest.json").read_text())
    (moved / "manifest.json").write_text(json.dumps(manifest | {"reason": "prepared again"}))
    export_run(run, tmp_path / "model.onnx", store=moved)
    assert f"warning: {moved}: is not as it was when small-run was trained; Dice is of its masks now" in log_lines
    with pytest.raises(InputError, match="license: must be a text"):
        export_run(run, tmp_path / "other.onnx", license="l\udcfc")  # Latin-1 on a command line


def test_a_run_that_left_nothing_out_is_judged_on_training_cases_and_labelled_so(run, tmp_path, monkeypatch):
    trained = load_run(run)
    everything = dataclasses.replace(trained, fold="all", held_out=[])
    monkeypatch.setattr(onnx_export, "load_runs", lambda path: everything)
    about = export_run(run, tmp_path / "all.onnx")
    assert about.dice_at_export["cases"] == "training"
    assert set(about.dice_at_export["per_case"]) == set(everything.training_cases)
    assert about.fold == "all"


@pytest.mark.parametrize("chosen", [None, True, False])
def test_components_are_kept_as_the_store_says_unless_the_call_says_otherwise(run, tmp_path, chosen):
    out = tmp_path / "model.onnx"
    export_run(run, out, largest_component=chosen)
    kept = read_artefact(out).postprocessing
    assert kept == load_run(run).postprocessing if chosen is None else kept.largest_component == chosen


def test_int8_run_is_calibrated_on_its_training_slices_and_close_to_the_checkpoint(run, tmp_path, monkeypatch):
    # Organs of a few voxels
    monkeypatch.setattr("attunet.export.build.parity.TOLERANCES", {"int8": Tolerance(0.05, 0.25, 0.8)})
    out = tmp_path / "int8.onnx"
    about = export_run(run, out, precision="int8")
    assert about.precision == "int8"
    assert verify(Segmenter(out)).same_labels == 1
    model = onnx.load(out)
    assert "ConvTranspose" not in _operators(model)
    quantized = [i for i in model.graph.initializer if i.data_type == onnx.TensorProto.INT8]
    assert len(quantized) > 20


def test_int8_is_not_calibrated_on_arrays_that_were_changed(run, small_store, tmp_path):
    shutil.copytree(small_store.path, tmp_path / "store")
    array = tmp_path / "store/cases" / sorted(load_run(run).training_cases)[0] / "image.npy"
    np.save(array, np.load(array) * 2)
    with pytest.raises(InputError, match=r"image\.npy: is not the array that was prepared"):
        export_run(run, tmp_path / "int8.onnx", precision="int8", store=tmp_path / "store")
    assert not (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        ({"precision": "bf16"}, "precision"),
        ({"out": "model.pt"}, r"\.onnx"),
        ({"outputs": ("labels",)}, "must include logits"),
        ({"outputs": ("logits", "heat")}, "'heat'"),
        ({"size": (100, 64)}, "multiples of 16"),
        ({"size": (2**20, 64)}, "up to 65536"),
        ({"size": (64,)}, "multiples of 16"),
        ({"size": 64}, "multiples of 16"),
        ({"parity_cases": -1}, "parity_cases: must be a whole number from 1"),
        ({"parity_cases": 1.5}, "parity_cases: must be a whole number from 1"),
        ({"parity_cases": True}, "parity_cases: must be a whole number from 1"),
        ({"largest_component": "no"}, "largest_component: must be true or false or null"),
        ({"license": 3}, "license: must be a text or null, got 3"),
        ({"store": "nowhere"}, "is no store"),
    ],
)
def test_impossible_call_is_one_line_and_writes_nothing(run, tmp_path, keywords, reason):
    out = tmp_path / keywords.pop("out", "model.onnx")
    if "store" in keywords:
        keywords["store"] = tmp_path / keywords["store"]
    with pytest.raises(InputError, match=reason):
        export_run(run, out, **keywords)
    assert list(tmp_path.iterdir()) == []


def test_source_that_moved_is_named_and_taken_from_where_it_is(run, small_store, tmp_path):
    with pytest.raises(InputError, match="--source"):
        export_run(run, tmp_path / "model.onnx", source=tmp_path)
    export_run(run, tmp_path / "model.onnx", source=small_store.source_root)
    assert (tmp_path / "model.onnx").exists()


def test_whole_artefact_segments_as_the_ordinary_one_and_passes_its_self_test(exported, run, small_store, tmp_path):
    out = tmp_path / "whole.onnx"
    about = export_run(run, out, whole=True)
    assert about.whole
    assert about.outputs == ("labels",)
    ordinary_dice = read_artefact(exported).dice_at_export["artefact"]
    assert about.dice_at_export["artefact"] == pytest.approx(ordinary_dice, abs=1e-4)
    assert verify(Segmenter(out)).same_labels == 1
    whole, ordinary = Segmenter(out), Segmenter(exported)
    volume, _ = small_store.read_source(load_run(run).held_out[0])
    assert (whole.predict_volume(volume) != ordinary.predict_volume(volume)).mean() < 1e-4
    with pytest.raises(InputError, match="takes volumes"):
        whole.logits(np.zeros((1, 1, 64, 64), np.float32))
    with pytest.raises(InputError, match="a whole artefact runs on"):
        Segmenter(out, provider="tensorrt")
    for keywords, reason in (({"size": (64, 64)}, "size"), ({"outputs": ("logits", "probabilities")}, "probabilities")):
        with pytest.raises(InputError, match=reason):
            export_run(run, tmp_path / "other.onnx", whole=True, **keywords)


def test_an_artefact_replaces_an_earlier_one_with_its_signature_and_says_so(run, tmp_path, caplog):
    out = tmp_path / "model.onnx"
    out.write_bytes(b"of another run")
    signature_of(out).write_bytes(b"of another artefact")
    with caplog.at_level("INFO"):
        export_run(run, out)
    assert f"{out}: replaces the earlier file" in caplog.text
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["model.onnx"]
    assert read_artefact(out).precision == "fp32"


def test_an_export_that_cannot_be_written_leaves_the_earlier_artefact_signed(run, tmp_path, monkeypatch):
    out = tmp_path / "model.onnx"
    out.write_bytes(b"of another run")
    signature_of(out).write_bytes(b"of another run")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(onnx_export, "write_file", full)
    with pytest.raises(OSError, match="No space left"):
        export_run(run, out)
    assert (out.read_bytes(), signature_of(out).read_bytes()) == (b"of another run",) * 2


def test_a_triton_repository_holds_the_checked_artefact(run, tmp_path):
    about = export_run(run, tmp_path / "models", triton="organs")
    assert read_artefact(tmp_path / "models/organs/1/model.onnx").dice_at_export == about.dice_at_export
    assert 'name: "organs"' in (tmp_path / "models/organs/config.pbtxt").read_text()
    with pytest.raises(InputError, match="exists already"):
        export_run(run, tmp_path / "models", triton="organs")
