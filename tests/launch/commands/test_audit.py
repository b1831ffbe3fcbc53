"""`--audit`: a record for every case, of predict and of the server;
no name, no path, and any change of it is noticed.
"""

import errno
import hashlib
import json
from pathlib import Path

import pytest

from attunet.export.runtime.audit import Audit, CaseAudit
from attunet.export.runtime.case_output import CaseOutput
from attunet.export.runtime.cohort import Job
from attunet.export.runtime.origin import Origin, origin_of
from attunet.privacy.audit_log import AuditLog, verify_audit
from attunet.sources.input import Input
from attunet.system.atomic_files import sha256


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_predict_records_every_case_of_a_folder(attunet, artefact, small_store, tmp_path):
    scans, log = tmp_path / "Planted-Name", tmp_path / "audit.jsonl"
    scans.mkdir()
    source = sorted(small_store.path.parent.glob("source/*src*"))
    (scans / "Planted-a.nii.gz").write_bytes(source[0].read_bytes())
    (scans / "Planted-b.nii.gz").write_bytes(source[1].read_bytes()[:300])
    done = attunet("predict", artefact, scans, tmp_path / "out", "--audit", log, "--user", "station 7")
    assert done.code == 1
    good, bad = records(log)
    good, bad = (good, bad) if good["status"] == "done" else (bad, good)
    assert good["input_sha256"] == sha256(scans / "Planted-a.nii.gz")
    assert good["output_sha256"] == sha256(tmp_path / "out/Planted-a.nii.gz")
    assert good["model_sha256"] == sha256(artefact)
    assert good["user"] == "station 7"
    assert (bad["status"], bad["output_sha256"]) == ("failed", None)
    assert bad["input_sha256"] == sha256(scans / "Planted-b.nii.gz")
    assert "Planted" not in log.read_text()
    assert verify_audit(log).records == 2
    one = attunet("predict", artefact, scans / "Planted-a.nii.gz", tmp_path / "one.nii.gz", "--audit", log)
    assert one.code == 0, one.err
    assert attunet("verify", "--audit", log).out.startswith(f"{log}: 3 records, the chain holds")
    log.write_text(log.read_text().replace("station 7", "station 8"))
    done = attunet("verify", "--audit", log)
    assert (done.code, "was changed" in done.err) == (2, True)


def test_the_hash_is_of_the_input_before_it_is_read(tmp_path):
    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes(b"as it was read")
    job = Job(Input("scan", (scan,)), tmp_path / "labels.nii.gz")
    audit = CaseAudit(Audit(AuditLog(tmp_path / "audit.jsonl"), "00"))
    audit.begin(job.write, origin_of(job.input, "00").scan_sha256)
    scan.write_bytes(b"as it is now")
    job.write.write_bytes(b"labels")
    audit.end(job.write, job.write)
    audit.end(tmp_path / "other.nii.gz", None)  # its input could not be read when it began
    first, second = records(tmp_path / "audit.jsonl")
    assert first["input_sha256"] == hashlib.sha256(b"as it was read").hexdigest()
    assert (second["input_sha256"], second["status"]) == (None, "failed")


def test_a_label_map_that_cannot_be_written_is_a_record(attunet, artefact, small_store, tmp_path):
    scan, log = sorted(small_store.path.parent.glob("source/*src*"))[0], tmp_path / "audit.jsonl"
    (tmp_path / "file").touch()
    done = attunet("predict", artefact, scan, tmp_path / "file/labels.nii.gz", "--audit", log)
    assert done.code != 0
    (record,) = records(log)
    assert (record["status"], record["input_sha256"]) == ("failed", sha256(scan))


def test_no_label_map_is_there_without_its_record(attunet, artefact, small_store, tmp_path, monkeypatch):
    """A process that is killed, or whose log's disk is full, leaves none of which the log knows nothing."""
    scans, log, out = tmp_path / "scans", tmp_path / "audit.jsonl", tmp_path / "out"
    scans.mkdir()
    for path in sorted(small_store.path.parent.glob("source/*src*"))[:2]:
        (scans / path.name).write_bytes(path.read_bytes())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(log))

    with monkeypatch.context() as patch:
        patch.setattr(AuditLog, "append", full)
        assert attunet("predict", artefact, scans, out, "--audit", log).code == 1
    assert not out.exists() or not list(out.iterdir())

    publish = CaseOutput.publish

    def look_and_publish(output: CaseOutput, origin: Origin, record: str | None = None) -> None:
        assert sha256(output.draft) in [one["output_sha256"] for one in records(log)]
        publish(output, origin, record)

    monkeypatch.setattr(CaseOutput, "publish", look_and_publish)
    assert attunet("predict", artefact, scans, out, "--audit", log).code == 0
    assert len(records(log)) == 2


def test_a_run_is_not_audited(attunet, run, small_store, tmp_path):
    scan = sorted(small_store.path.parent.glob("source/*src*"))[0]
    done = attunet("predict", run, scan, tmp_path / "labels.nii.gz", "--audit", tmp_path / "audit.jsonl")
    assert (done.code, "needs an artefact" in done.err) == (2, True)


@pytest.mark.parametrize("which", ["model", "scan", "labels"])
def test_a_log_is_none_of_the_files_of_the_call(attunet, artefact, small_store, tmp_path, which):
    files = {"model": tmp_path / "model.onnx", "scan": tmp_path / "scan.nii.gz", "labels": tmp_path / "labels.nii.gz"}
    files["model"].write_bytes(artefact.read_bytes())
    files["scan"].write_bytes(sorted(small_store.path.parent.glob("source/*src*"))[0].read_bytes())
    before = {name: path.read_bytes() for name, path in files.items() if path.exists()}
    done = attunet("predict", *files.values(), "--audit", files[which])
    assert (done.code, "another file than" in done.err) == (2, True)
    assert {name: path.read_bytes() for name, path in files.items() if path.exists()} == before


@pytest.fixture
def log(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def client(artefact, log, tmp_path):
    """A client of a server of the small artefact that keeps an audit log."""
    pytest.importorskip("fastapi")
    testclient = pytest.importorskip("fastapi.testclient")
    from attunet.export.serve.app import make_app
    from attunet.export.serve.service import Service
    from attunet.export.serve.settings import Settings
    from attunet.export.serve.work.served_model import load_models
    from attunet.system.private_folder import PrivateFolder

    with PrivateFolder(tmp_path) as folder:
        service = Service(Settings(), load_models([artefact], num_threads=1, audit_log=AuditLog(log)), folder)
        with testclient.TestClient(make_app(service), base_url="http://localhost") as client:
            yield client


def test_the_server_records_every_scan(client, artefact, small_store, log):
    scan = sorted(small_store.path.parent.glob("source/*src*"))[0].read_bytes()
    url = f"/v1/models/{artefact.stem}/segment"
    answer = client.post(url, content=scan, headers={"X-Attunet-User": "station 7"})
    assert answer.status_code == 200
    assert client.post(url, content=b"no scan").status_code == 422
    for name in ("Dr Ü", "山田\u3000太郎"):
        assert client.post(url, content=b"no scan", headers={"X-Attunet-User": name.encode()}).status_code == 422
    for name in (b"a\x7fb", b"x" * 129):
        refused = client.post(url, content=scan, headers={"X-Attunet-User": name})
        assert (refused.status_code, "printable characters" in refused.text) == (422, True)
    good, bad, *others = records(log)
    assert [record["user"] for record in others] == ["Dr Ü", "山田\u3000太郎"]
    assert good["input_sha256"] == hashlib.sha256(scan).hexdigest()
    assert good["output_sha256"] == hashlib.sha256(answer.content).hexdigest()
    assert (good["user"], good["status"], bad["user"], bad["status"]) == ("station 7", "done", None, "failed")
    assert verify_audit(log).records == 4


def test_the_server_records_what_comes_as_tensors(client, artefact, log):
    slices = {"name": "slices", "shape": [1, 1, 32, 32], "datatype": "FP32", "data": [0.5] * 32 * 32}
    body = json.dumps({"inputs": [slices], "outputs": [{"name": "labels"}]}).encode()
    url = f"/v2/models/{artefact.stem}/infer"
    answer = client.post(url, content=body, headers={"X-Attunet-User": "station 7"})
    assert answer.status_code == 200
    assert client.post(url, content=b"{}").status_code == 400
    good, bad = records(log)
    log.unlink()
    log.mkdir()
    assert client.post(url, content=body).status_code == 503  # nothing is answered without a record
    assert good["input_sha256"] == hashlib.sha256(body).hexdigest()
    assert good["output_sha256"] == hashlib.sha256(answer.content).hexdigest()
    assert (good["user"], good["status"], bad["status"]) == ("station 7", "done", "failed")


@pytest.mark.parametrize("user", ["", " ", "a\nb\x1b[31m", "x" * 129, "Dr \udcdc"])
def test_a_user_without_a_printable_name_is_refused_before_the_work(attunet, artefact, small_store, tmp_path, user):
    scan = sorted(small_store.path.parent.glob("source/*src*"))[0]
    done = attunet("predict", artefact, scan, tmp_path / "o.nii.gz", "--audit", tmp_path / "log.jsonl", "--user", user)
    assert (done.code, "printable characters" in done.err, list(tmp_path.iterdir())) == (2, True, [])
