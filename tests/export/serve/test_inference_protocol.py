"""The Open Inference Protocol: Triton's own client against the server, and requests that must be refused."""

import asyncio
import gzip
import json
import threading
import tracemalloc

import numpy as np
import pytest
from fastapi.testclient import TestClient

from attunet.errors import InputError
from attunet.export.runtime import Segmenter
from attunet.export.serve.app import make_app
from attunet.export.serve.routes.tensors import read_request
from attunet.export.serve.service import Service
from attunet.export.serve.settings import Settings
from attunet.export.serve.work.served_model import load_models
from attunet.system.private_folder import PrivateFolder


@pytest.fixture
def triton(server):
    http = pytest.importorskip("tritonclient.http")
    client = http.InferenceServerClient(server.url.removeprefix("http://"))
    yield client
    client.close()


@pytest.fixture(scope="module")
def slices() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 1, 32, 48)).astype(np.float32)


def tensor(slices: np.ndarray, *, binary: bool = True):
    from tritonclient.http import InferInput

    return [InferInput("slices", list(slices.shape), "FP32").set_data_from_numpy(slices, binary_data=binary)]


def test_triton_client_reads_what_is_served(triton):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("small")
    assert triton.is_model_ready("small", "1")
    assert triton.get_server_metadata()["name"] == "attunet"
    metadata = triton.get_model_metadata("small")
    assert metadata["inputs"] == [{"name": "slices", "datatype": "FP32", "shape": [-1, 1, -1, -1]}]
    assert metadata["outputs"][:2] == [
        {"name": "labels", "datatype": "UINT8", "shape": [-1, -1, -1]},
        {"name": "logits", "datatype": "FP32", "shape": [-1, 5, -1, -1]},
    ]
    assert triton.get_model_config("small")["input"][0]["data_type"] == "TYPE_FP32"
    assert triton.get_model_repository_index()[0]["name"] == "small"
    assert not triton.is_model_ready("other")


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_triton_client_gets_what_the_runtime_gives(triton, artefact, slices, binary, compression):
    from tritonclient.http import InferRequestedOutput

    outputs = [InferRequestedOutput(name, binary_data=binary) for name in ("labels", "logits")]
    result = triton.infer(
        "small",
        tensor(slices, binary=binary),
        outputs=outputs,
        request_id="seven",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    segmenter = Segmenter(artefact, num_threads=1)
    np.testing.assert_array_equal(result.as_numpy("labels"), segmenter.run(("labels",), slices)[0])
    np.testing.assert_allclose(result.as_numpy("logits"), segmenter.logits(slices), rtol=1e-6, atol=1e-6)
    assert result.get_response()["id"] == "seven"


def test_triton_client_gets_every_output_where_it_names_none(triton, artefact, slices):
    result = triton.infer("small", tensor(slices))
    segmenter = Segmenter(artefact, num_threads=1)
    names = segmenter.metadata.outputs
    for name, expected in zip(names, segmenter.run(names, slices), strict=True):
        np.testing.assert_allclose(result.as_numpy(name), expected, rtol=1e-6, atol=1e-6)


def test_triton_client_raises_the_servers_line(triton, slices):
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="height a multiple of 16"):
        triton.infer("small", tensor(slices[:, :, :20]))
    with pytest.raises(InferenceServerException, match="small is served here"):
        triton.infer("other", tensor(slices))


ROW = {"name": "slices", "datatype": "FP32", "shape": [1, 1, 16, 16], "data": [0.5] * 256}


def with_row(**changes: object) -> dict[str, object]:
    return {"inputs": [{key: value for key, value in (ROW | changes).items() if value is not ...}]}


def test_texts_in_place_of_numbers_take_no_memory(metadata, tmp_path):
    """NumPy makes every text of an array as long as its longest."""
    body = tmp_path / "body"
    body.write_text(json.dumps(with_row(data=["a" * 200_000] + ["b"] * 1000)))
    tracemalloc.start()
    with pytest.raises(InputError, match="must be 256 numbers"):
        read_request(body, None, metadata)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000  # 800 MB as an array of texts


@pytest.mark.parametrize("part", ["[]", '{"":0}', '""', "[[1]]"])
def test_parts_that_hold_nothing_are_counted_before_they_are_parsed(metadata, tmp_path, part, monkeypatch):
    monkeypatch.setattr("attunet.export.serve.routes.tensors.parse_json", None)
    (tmp_path / "body").write_text('{"inputs":[' + ",".join([part] * 20_000) + "]}")
    with pytest.raises(InputError, match=r"body: is JSON of .* at most 4,096 and a list for each 32 bytes"):
        read_request(tmp_path / "body", None, metadata)


def test_rows_of_a_slice_may_be_lists(metadata, tmp_path):
    slices = np.arange(2 * 1600 * 16).reshape(2, 1, 1600, 16) % 10
    row = with_row(shape=list(slices.shape), data=slices.tolist())
    (tmp_path / "body").write_text(json.dumps(row, separators=(",", ":")))
    np.testing.assert_array_equal(read_request(tmp_path / "body", None, metadata).inputs["slices"], slices)


@pytest.fixture
def small_service(artefact, tmp_path):
    with PrivateFolder(tmp_path) as folder:
        yield Service(Settings(), load_models([f"small={artefact}"]), folder)


def test_an_answer_is_compressed_where_it_is_computed(small_service, monkeypatch):
    """In the event loop, everyone else would wait."""
    threads: list[str] = []
    compress = gzip.compress

    def watched(*arguments: object) -> bytes:
        threads.append(threading.current_thread().name)
        return compress(*arguments)

    monkeypatch.setattr(gzip, "compress", watched)
    with TestClient(make_app(small_service), base_url="http://localhost") as client:
        headers = {"Accept-Encoding": "gzip"}
        answer = client.post("/v2/models/small/infer", json=with_row(), headers=headers)
    assert (answer.status_code, answer.headers["content-encoding"]) == (200, "gzip")
    assert len(threads) == 1
    assert threads[0].startswith("scan")


def test_answers_have_a_bound_until_they_are_read(small_service):
    """Clients that read nothing would fill the memory. uvicorn waits for them before it takes the next part."""
    before, counts, parts = small_service.answers.left, [], []
    app, body = make_app(small_service), json.dumps(with_row()).encode()

    async def infer() -> list[int]:
        messages = [{"type": "http.request", "body": body}]
        statuses: list[int] = []

        async def receive() -> dict[str, object]:
            return messages.pop() if messages else await asyncio.Future()

        async def send(message: dict[str, object]) -> None:
            counts.append(before - small_service.answers.left)
            statuses.extend(message[key] for key in ("status",) if key in message)
            parts.extend((len(message[key]), message.get("more_body", False)) for key in ("body",) if key in message)

        path, headers = "/v2/models/small/infer", [(b"host", b"localhost"), (b"content-length", b"%d" % len(body))]
        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
        await app(scope, receive, send)
        return statuses

    assert asyncio.run(infer()) == [200]
    assert min(counts) > 1000
    assert (parts[-2][0] > 0, parts[-2][1], parts[-1]) == (True, True, (0, False))
    assert small_service.answers.left == before
    small_service.answers.left = 100
    assert asyncio.run(infer()) == [503]
    assert small_service.answers.left == 100


BROKEN = {
    "no object": ([], "must be an object"),
    "no inputs": ({}, "inputs: the field is missing"),
    "another name": (with_row(name="volume"), "inputs: must be slices"),
    "twice": ({"inputs": [ROW, ROW]}, "is there twice"),
    "another type": (with_row(datatype="UINT8", data=[1] * 256), "must be FP32"),
    "unknown type": (with_row(datatype="BYTES"), "inputs[0].datatype: must be one of"),
    "a type that is a list": (with_row(datatype=["FP32"]), "inputs[0].datatype: must be one of"),
    "half of a surrogate pair": (with_row(name="\ud800"), "got \\ud800"),
    "no shape": (with_row(shape=...), "inputs[0].shape: the field is missing"),
    "empty shape": (with_row(shape=[]), "must have the shape"),
    "side of zero": (with_row(shape=[1, 1, 0, 16]), "inputs[0].shape: must be"),
    "side of true": (with_row(shape=[True, 1, 16, 16]), "inputs[0].shape: must be"),
    "channels": (with_row(shape=[1, 2, 16, 8]), "must have the shape"),
    "no multiple of 16": (with_row(shape=[1, 1, 8, 32]), "multiple of 16"),
    "too few numbers": (with_row(data=[0.5] * 255), "must be 256 numbers"),
    "texts": (with_row(data=["1"] * 256), "must be 256 numbers"),
    "ragged": (with_row(data=[[1], [1, 2]]), "must be 256 numbers"),
    "rows and columns exchanged": (
        with_row(shape=[1, 1, 16, 32], data=np.zeros((1, 1, 32, 16)).tolist()),
        "must be flat or nested as its shape [1, 1, 16, 32], got (1, 1, 32, 16)",
    ),
    "null": (with_row(data=None), "must be 256 numbers"),
    "too large": (with_row(data=[1e300] * 256), "finite"),
    "binary size of nothing": (
        with_row(data=..., parameters={"binary_data_size": 1024}),
        "inputs[0].parameters.binary_data_size: must be",
    ),
    "shared memory": (with_row(data=..., parameters={"shared_memory_region": "a"}), "not supported"),
    "parameters": (with_row(parameters=[1]), "parameters: must be an object"),
    "unknown output": ({**with_row(), "outputs": [{"name": "heatmap"}]}, "must be one of"),
    "outputs": ({**with_row(), "outputs": {"labels": 1}}, "outputs: must be a list"),
    "classification": (
        with_row() | {"outputs": [{"name": "labels", "parameters": {"classification": 3}}]},
        "not supported",
    ),
    "id": ({**with_row(), "id": 7}, "id: must be"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_wrong_request_is_refused_with_its_rule(server, name):
    body, line = BROKEN[name]
    answer = server.post("/v2/models/small/infer", json.dumps(body))
    assert answer.status_code == 400, answer.text
    assert line in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def binary(slices: np.ndarray, *, extra: bytes = b"", count: int | None = None) -> tuple[bytes, dict[str, str]]:
    row = {"name": "slices", "datatype": "FP32", "shape": list(slices.shape)}
    row["parameters"] = {"binary_data_size": slices.nbytes if count is None else count}
    text = json.dumps({"inputs": [row]}).encode()
    return text + slices.tobytes() + extra, {"Inference-Header-Content-Length": str(len(text))}


def test_binary_tensors_that_do_not_fit_are_refused(server, slices):
    url = "/v2/models/small/infer"
    body, headers = binary(slices)
    assert server.post(url, body, headers=headers).status_code == 200
    for content, more, line in (
        (body[:-4], headers, "binary_data_size: must be"),
        (binary(slices, extra=b"1234")[0], headers, "belong to no tensor"),
        (*binary(slices, count=slices.nbytes - 4), "does not have"),
        (body, {"Inference-Header-Content-Length": "99999999"}, "Inference-Header-Content-Length"),
        (body, {"Inference-Header-Content-Length": "-1"}, "Inference-Header-Content-Length"),
        (body, {"Inference-Header-Content-Length": "9" * 5000}, "Inference-Header-Content-Length"),
        (body, {}, "is not JSON"),
        (b'{"inputs": [], "inputs": []}', {}, "'inputs' twice"),
        (*binary(np.full_like(slices, np.nan)), "finite"),
        (*binary(np.full_like(slices, np.inf)), "finite"),
        (body[:-4], {**headers, "Content-Encoding": "gzip"}, "is no gzip"),
        (gzip.compress(body)[:-20], {**headers, "Content-Encoding": "gzip"}, "cut short"),
    ):
        answer = server.post(url, content, headers=more)
        assert answer.status_code == 400, answer.text
        assert line in answer.json()["error"]
    assert server.post(url, body, headers={**headers, "Content-Encoding": "br"}).status_code == 415
    assert server.post(url, json.dumps({"inputs": [ROW]}).replace("0.5", "NaN", 1)).status_code == 400
    assert server.post("/v2/models/small/versions/2/infer", body, headers=headers).status_code == 404
    assert server.post(url, None, files={"a": ("a", body), "b": ("b", body)}).status_code == 400
    huge = np.full_like(slices, 3e38)
    assert server.post(url, *binary(huge)[:1], headers=binary(huge)[1]).status_code in (200, 422)
