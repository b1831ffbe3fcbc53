"""An artefact describes itself; any other file is refused with the reason before a session is made."""

import dataclasses
import json

import numpy as np
import pytest

from attunet.errors import InputError
from attunet.export.artefact import onnx_file
from attunet.export.artefact.artefact import SCHEMA
from attunet.export.artefact.artefact_file import KEY, load_artefact, read_artefact, write_artefact
from attunet.export.artefact.card import card
from attunet.export.artefact.onnx_file import _varint, check_file, with_metadata
from attunet.export.artefact.self_test_data import SelfTest
from attunet.export.runtime.segmenter import Segmenter
from attunet.volumes.spec import Postprocessing, Preprocessing
from attunet.volumes.training_ranges import TrainingRanges


@pytest.fixture(autouse=True)
def _no_session(monkeypatch):
    import onnxruntime

    def refuse(*_args, **_keywords):
        raise AssertionError("a session was made")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)


def _refused(tmp_path, data: bytes) -> str:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(InputError) as refusal:
        Segmenter(path)
    message = str(refusal.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


class Values(dict):
    """Any JSON in place of metadata; `write_artefact` hashes it like its own."""

    def to_json(self):
        return dict(self)


def _with_values(graph: bytes, metadata, **changes) -> bytes:
    return write_artefact(graph, Values(metadata.to_json() | changes))


def test_metadata_survive_the_file(save_artefact, metadata):
    changes = dict(
        precision="int8",
        preprocessing=Preprocessing(metadata.spec, Postprocessing(largest_component=True, erosion_mm=6.0)),
        ranges=TrainingRanges("mm", ((1.0, 2.0),) * 3, ((50.0, 60.5),) * 3, ((3.0, 3.0),), ((-1.0, 4.0),)),
        height=64,
        training_cases={"01": "ab" * 32},
        fold="all",
        license="CC-BY-NC-SA 4.0",
        config={"model": {"base_width": 4}},
        dice_at_export={
            "cases": "training",
            "artefact": 0.9,
            "checkpoint": None,
            "per_class": {"liver": 0.9},
            "per_case": {"01": {"liver": 0.9}},
        },
        tools={"attunet": "0.1.0"},
        self_test=SelfTest(np.ones((1, 1, 64, 64), np.float32), np.zeros((1, 5, 16, 16), np.float32), 4, 1e-3),
    )
    assert read_artefact(save_artefact(**changes)).to_json() == dataclasses.replace(metadata, **changes).to_json()


@pytest.mark.parametrize(("orientation", "unit"), [("LPS", "mm"), (None, "pixels")])
def test_a_person_reads_lengths_in_the_unit_of_the_files(save_artefact, metadata, orientation: str | None, unit: str):
    spec = dataclasses.replace(metadata.spec, orientation=orientation)
    text = card(save_artefact(preprocessing=Preprocessing(spec, Postprocessing(True, 6.0))))
    assert f"largest component, necks under 12 {unit} cut" in text
    assert f"1.6 {unit} in plane" in text


def test_file_is_a_valid_onnx_model_with_the_json_under_one_key(artefact, metadata):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(artefact)
    onnx.checker.check_model(model, full_check=True)
    (entry,) = model.metadata_props
    values = json.loads(entry.value)
    assert entry.key == KEY
    assert values["schema"] == SCHEMA
    assert values["classes"][2] == {"index": 2, "name": "right kidney", "value": 2, "color": "#56B4E9"}
    assert len(values["sha256"]) == 64


def test_artefacts_of_before_the_ranges_are_read(tmp_path, graph, metadata):
    values = Values(metadata.to_json())
    del values["ranges"]
    path = tmp_path / "older.onnx"
    path.write_bytes(write_artefact(graph, values))
    assert read_artefact(path).ranges is None


def test_hash_can_be_checked_as_documented(artefact):
    import hashlib

    data = artefact.read_bytes()
    ((start, end),) = check_file(data, KEY, "")[0]
    digest = json.loads(data[start:end])["sha256"]
    assert hashlib.sha256(data.replace(digest.encode(), b"0" * 64)).hexdigest() == digest


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda data: b"", "empty"),
        (lambda data: b"not a model\n" * 50, "not an ONNX model"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: b"\x89PNG\r\n" + data, "not an ONNX model"),
    ],
)
def test_damaged_or_foreign_bytes_are_refused(tmp_path, artefact, make, reason):
    assert reason in _refused(tmp_path, make(artefact.read_bytes()))


def test_somebody_elses_model_is_refused(tmp_path, graph):
    assert "attunet did not export" in _refused(tmp_path, graph)


def test_changed_weight_is_refused(tmp_path, artefact):
    data = bytearray(artefact.read_bytes())
    data[len(data) // 3] ^= 1
    assert "damaged or changed" in _refused(tmp_path, bytes(data))


def test_metadata_of_another_artefact_are_refused(tmp_path, graph, artefact, metadata):
    onnx = pytest.importorskip("onnx")
    other = onnx.load_from_string(graph)
    other.graph.initializer[0].raw_data = bytes(len(other.graph.initializer[0].raw_data))
    data = artefact.read_bytes()
    ((start, end),) = check_file(data, KEY, "")[0]
    assert "damaged or changed" in _refused(tmp_path, with_metadata(other.SerializeToString(), KEY, data[start:end]))


def test_two_sets_of_metadata_are_refused(tmp_path, artefact):
    assert "must occur once" in _refused(tmp_path, with_metadata(artefact.read_bytes(), KEY, b"{}"))


def test_metadata_that_read_in_two_ways_are_refused(tmp_path, graph):
    data = with_metadata(graph, KEY, b'{"schema": 1, "schema": 2}')
    assert "has the name 'schema' twice in an object" in _refused(tmp_path, data)


@pytest.mark.parametrize("where", ["name", "channels", "config"])
def test_half_of_a_surrogate_pair_is_refused(tmp_path, graph, metadata, where):
    """JSON can have it, and no answer, card or page could."""
    values = json.loads(json.dumps({**metadata.to_json(), "sha256": "0" * 64, where: ["liver\ud800"]}))
    message = _refused(tmp_path, with_metadata(graph, KEY, json.dumps(values).encode()))
    assert "must be text that UTF-8 can write" in message


def test_newer_schema_is_refused_and_says_what_to_do(tmp_path, graph, metadata):
    message = _refused(tmp_path, _with_values(graph, metadata, schema=SCHEMA + 1, precision="int2"))
    assert f"schema {SCHEMA + 1}" in message
    assert "newer attunet is needed" in message


def test_external_data_are_refused_by_name(tmp_path, graph, metadata):
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(graph)
    tensor = model.graph.initializer[3]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    message = _refused(tmp_path, write_artefact(model.SerializeToString(), metadata))
    assert tensor.name in message
    assert "refers to another file" in message


@pytest.mark.parametrize("high", [1 << 32, 5 << 34, 1 << 63])
@pytest.mark.parametrize("around", [0, 1 << 32])
def test_external_data_behind_tags_of_more_than_32_bits_are_refused(tmp_path, graph, metadata, high, around):
    """ONNX Runtime keeps 32 bits of a tag, so that it sees another field than who keeps all."""
    onnx = pytest.importorskip("onnx")

    def field(number: int, data: bytes, bits: int = 0) -> bytes:
        return _varint(number << 3 | 2 | bits) + _varint(len(data)) + data

    model = onnx.load_from_string(graph)
    tensor = model.graph.initializer.pop(3)
    tensor.ClearField("raw_data")
    location = field(1, b"location") + field(2, b"secret.bin")
    hidden = tensor.SerializeToString() + field(13, location, high) + _varint(14 << 3 | high) + _varint(1)
    changed = model.SerializeToString() + field(7, field(5, hidden, around), around)
    assert "is not an ONNX model" in _refused(tmp_path, write_artefact(changed, metadata))


@pytest.mark.parametrize("where", ["graph", "subgraph"])
@pytest.mark.parametrize(
    ("operator", "domain", "reason"),
    [
        ("Loop", "", "does not follow from the size of a scan"),
        ("ConstantOfShape", "ai.onnx", "does not follow from the size of a scan"),
        ("Tile", "", "does not follow from the size of a scan"),
        ("Inverse", "com.microsoft", "of ONNX alone"),
        ("Anything", "elsewhere\n", "of ONNX alone"),
    ],
)
def test_operators_without_a_bound_and_of_others_are_refused(
    tmp_path, graph, metadata, where, operator, domain, reason
):
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(graph)
    node = onnx.NodeProto(op_type=operator, domain=domain, input=["slices"], output=["another"])
    if where == "graph":
        model.graph.node.append(node)
    else:
        model.graph.node[0].attribute.add(name="body", type=onnx.AttributeProto.GRAPH).g.node.append(node)
    message = _refused(tmp_path, write_artefact(model.SerializeToString(), metadata))
    assert reason in message
    assert operator in message


def test_a_graph_of_whole_volumes_may_loop(tmp_path, graph, metadata):
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(graph)
    whole = dataclasses.replace(metadata, whole=True, outputs=("labels",))
    model.graph.node.add(op_type="Loop", input=["a"], output=["b"])
    (tmp_path / "model.onnx").write_bytes(write_artefact(model.SerializeToString(), whole))
    assert read_artefact(tmp_path / "model.onnx").whole
    model.graph.node.add(op_type="ConstantOfShape", input=["a"], output=["c"])
    assert "ConstantOfShape" in _refused(tmp_path, write_artefact(model.SerializeToString(), whole))


def test_functions_and_graphs_of_a_training_are_refused(tmp_path, graph, metadata):
    onnx = pytest.importorskip("onnx")
    for field, words in (("functions", "functions are not taken"), ("training_info", "graphs of a training are not")):
        model = onnx.load_from_string(graph)
        getattr(model, field).add()
        assert words in _refused(tmp_path, write_artefact(model.SerializeToString(), metadata))


@pytest.mark.parametrize("inside", [False, True])
def test_more_fields_than_a_network_has_are_refused(tmp_path, graph, metadata, inside, monkeypatch):
    assert onnx_file.MAX_FIELDS <= 2**20
    monkeypatch.setattr(onnx_file, "MAX_FIELDS", 20_000)
    many = b"\x0a\x00" * 20_001  # nodes of a graph
    data = graph + (b"\x3a" + _varint(len(many)) + many if inside else b"\xf8\x3f\x00" * 20_001)
    assert "more than 20,000 fields" in _refused(tmp_path, write_artefact(data, metadata))


@pytest.mark.parametrize("where", ["initializer", "attribute"])
def test_sparse_tensors_are_refused(tmp_path, graph, metadata, where):
    """They unpack when they are loaded, from some bytes to gigabytes."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(graph)
    values = onnx.helper.make_tensor("large", onnx.TensorProto.FLOAT, [1], [1.0])
    sparse = onnx.helper.make_sparse_tensor(values, onnx.helper.make_tensor("at", 7, [1], [0]), [2**27])
    if where == "initializer":
        model.graph.sparse_initializer.append(sparse)
    else:
        model.graph.node.append(onnx.helper.make_node("Constant", [], ["large"], sparse_value=sparse))
    assert "sparse tensors are not taken" in _refused(tmp_path, write_artefact(model.SerializeToString(), metadata))


def test_external_data_hidden_in_a_subgraph_are_refused(tmp_path, graph, metadata):
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(graph)
    inner = onnx.TensorProto(name="hidden", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    model.graph.node[0].attribute.add(name="body", type=onnx.AttributeProto.GRAPH).g.initializer.append(inner)
    assert "'hidden'" in _refused(tmp_path, write_artefact(model.SerializeToString(), metadata))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"schema": "1"}, "schema"),
        ({"schema": True}, "schema"),
        ({"precision": "fp8"}, "precision"),
        ({"classes": [{"name": "background", "value": 0}]}, "classes"),
        ({"classes": [{"name": "a", "value": 0}, {"name": "a", "value": 1}]}, "classes"),
        ({"classes": "liver"}, "classes"),
        ({"preprocessing": {}}, "preprocessing"),
        ({"input": {"name": "slices", "height": 100, "width": None}}, "height"),
        ({"outputs": [{"name": "labels"}]}, "outputs"),
        ({"training": []}, "training"),
        ({"num_parameters": -1}, "num_parameters"),
        ({"golden": {"stride": 0, "tolerance": 0.1}}, "stride"),
        ({"dice_at_export": {"cases": "some"}}, "cases"),
        ({"ranges": {"unit": "inch"}}, "ranges"),
        ({"ranges": {"unit": "mm", "spacing": [[1, 2]], "extent": [[1, 2]] * 3, "std": [[1, 2]]}}, "ranges.spacing"),
        (
            {"ranges": {"unit": "mm", "spacing": [[2, 1]] * 3, "extent": [[1, 2]] * 3, "std": [[1, 2]]}},
            "ranges.spacing",
        ),
    ],
)
def test_metadata_with_an_impossible_field_are_refused_naming_it(tmp_path, graph, metadata, changes, field):
    assert field in _refused(tmp_path, _with_values(graph, metadata, **changes))


@pytest.mark.parametrize("parent", [{"name": "a"}, {"sha256": "a"}, {"name": "", "sha256": "a"}, []])
def test_the_training_that_came_before_has_a_name_and_a_hash(tmp_path, graph, metadata, parent):
    training = {**metadata.to_json()["training"], "parent": parent}
    assert "training.parent" in _refused(tmp_path, _with_values(graph, metadata, training=training))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("orientation", "LLS"),
        ("slice_axis", 3),
        ("spacing_mm", 0),
        ("size", [100, 100]),
        ("normalization", "minmax"),
        ("clip_percentiles", [99, 1]),
        ("context_slices", 2),
        ("num_channels", True),
    ],
)
def test_impossible_preprocessing_is_refused_naming_the_field(tmp_path, graph, metadata, name, value):
    changed = {**metadata.spec.to_json(), name: value}
    assert f"preprocessing.{name}" in _refused(tmp_path, _with_values(graph, metadata, preprocessing=changed))


def test_missing_file_and_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(InputError, match="no such file"):
            load_artefact(path)


def test_a_strangers_names_make_no_lines_of_the_card(graph, metadata, tmp_path):
    forged = "x\nerror: forged\t\x1b[31m"
    changed = dataclasses.replace(metadata, name=forged, license=forged, tools={forged: forged})
    (tmp_path / "forged.onnx").write_bytes(write_artefact(graph, changed))
    (tmp_path / "plain.onnx").write_bytes(write_artefact(graph, metadata))
    lines = card(tmp_path / "forged.onnx").splitlines()
    assert len(lines) == len(card(tmp_path / "plain.onnx").splitlines())
    assert not any(line.startswith("error") for line in lines)


def test_names_of_channels_are_optional_and_as_many_as_the_channels(tmp_path, graph, metadata, save_artefact):
    assert "channel_names" not in metadata.to_json()
    assert read_artefact(save_artefact("named.onnx", channels=("T2w",))).channels == ("T2w",)
    assert "T2w" in card(save_artefact("named.onnx", channels=("T2w",)))
    for names in (["a", "b"], [], [1], "T2w", None):
        assert "channel_names" in _refused(tmp_path, _with_values(graph, metadata, channel_names=names))
