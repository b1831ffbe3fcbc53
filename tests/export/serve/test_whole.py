"""A whole artefact behind the server: scans, and volumes by the Open Inference Protocol."""

import gzip
import json
import time

import httpx
import nibabel as nib
import numpy as np
import pytest

from attunet.export.runtime import Segmenter
from attunet.export.serve.app import make_app
from attunet.export.serve.service import Service
from attunet.export.serve.settings import Settings
from attunet.export.serve.work.served_model import load_models
from attunet.system.private_folder import PrivateFolder

testclient = pytest.importorskip("fastapi.testclient")


@pytest.fixture
def client(whole, tmp_path):
    with PrivateFolder(tmp_path) as folder:
        service = Service(Settings(max_megapixels=20), load_models([whole], num_threads=1), folder)
        with testclient.TestClient(make_app(service), base_url="http://localhost") as client:
            yield client


def test_a_scan_gives_what_predict_writes(client, attunet, whole, scan, tmp_path):
    assert attunet("predict", whole, scan, tmp_path / "labels.nii.gz").code == 0
    answer = client.post("/v1/models/whole/segment", content=scan.read_bytes())
    assert answer.status_code == 200, answer.text
    assert answer.content == (tmp_path / "labels.nii.gz").read_bytes()


def test_volumes_by_the_protocol(client, whole, scan):
    metadata = client.get("/v2/models/whole").json()
    assert metadata["inputs"] == [
        {"name": "volume", "datatype": "FP32", "shape": [1, -1, -1, -1]},
        {"name": "spacing", "datatype": "FP32", "shape": [3]},
    ]
    assert metadata["outputs"] == [{"name": "labels", "datatype": "UINT8", "shape": [-1, -1, -1]}]
    volume = np.ascontiguousarray(nib.load(scan).get_fdata(dtype=np.float32).T[None])
    answer = client.post("/v2/models/whole/infer", content=body(volume, [5, 1.5, 1.5]))
    assert answer.status_code == 200, answer.text
    (labels,) = answer.json()["outputs"]
    expected = Segmenter(whole, num_threads=1).segment_oriented(volume, np.array([5, 1.5, 1.5], np.float32))
    assert labels["shape"] == list(expected.shape)
    np.testing.assert_array_equal(np.reshape(labels["data"], labels["shape"]), expected)


@pytest.mark.parametrize(
    ("spacing", "status", "line"),
    [
        ([5, 0, 1.5], 400, "above 0"),
        ([5, -1, 1.5], 400, "above 0"),
        ([5, 1.5], 400, "must have the shape"),
        ([5, 900, 900], 413, ""),
    ],
)
def test_a_spacing_that_cannot_be_is_refused(client, spacing, status, line):
    answer = client.post("/v2/models/whole/infer", content=body(np.zeros((1, 4, 16, 16), np.float32), spacing))
    assert answer.status_code == status, answer.text
    assert line in answer.json()["error"]


def test_volumes_of_a_wrong_shape_type_or_value_are_refused(client):
    good, spacing = np.full((1, 2, 16, 16), 5.0, np.float32), [5, 1.5, 1.5]
    for volume, line in (
        (good[0], "must have the shape"),
        (np.concatenate([good, good]), "must have the shape"),
        (np.where(good == 5, np.nan, good), "is not JSON"),
        (np.where(good == 5, np.inf, good), "is not JSON"),
    ):
        answer = client.post("/v2/models/whole/infer", content=body(volume, spacing))
        assert answer.status_code == 400, answer.text
        assert line in answer.json()["error"]
    for old, new in (("5.0", "1e300"), ("FP32", "UINT8"), ('"spacing"', '"size"'), ('"volume"', '"slices"')):
        answer = client.post("/v2/models/whole/infer", content=body(good, spacing).replace(old, new, 1))
        assert answer.status_code == 400, answer.text
    assert client.post("/v2/models/whole/infer", content=body(good, spacing)).status_code == 200


def body(volume: np.ndarray, spacing: list[float]) -> str:
    arrays = {"volume": volume, "spacing": np.array(spacing, np.float32)}
    rows = [{"name": n, "shape": list(a.shape), "data": a.ravel().tolist()} for n, a in arrays.items()]
    return json.dumps({"inputs": [{**row, "datatype": "FP32"} for row in rows]})


@pytest.fixture(scope="module")
def endless() -> bytes:
    """A scan that would take the small artefact minutes, in few bytes."""
    data = np.zeros((32, 32, 30_000), np.int16)
    data[::2] = 100
    return gzip.compress(nib.Nifti1Image(data, np.diag([-1.6, -1.6, 5.0, 1.0])).to_bytes(), 1)


@pytest.mark.parametrize("gone", ["time limit", "client"])
def test_a_run_without_a_waiting_client_ends_midway(serve, whole, endless, scan, gone):
    server = serve("--timeout", 20 if gone == "client" else 4, "--max-megapixels", 4096, model=whole)
    if gone == "client":
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.url + "/v1/models/whole/segment", content=endless, timeout=3)
    else:
        assert server.post("/v1/models/whole/segment", endless).status_code == 504
    until = time.monotonic() + 15
    while "attunet_queue_running 0.0" not in server.get("/metrics").text:
        assert time.monotonic() < until, "the run goes on"
        time.sleep(0.1)
    assert server.uploads() == []
    assert server.post("/v1/models/whole/segment", scan.read_bytes()).status_code == 200
