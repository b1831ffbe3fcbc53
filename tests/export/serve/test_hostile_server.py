"""The client believes nothing: a server that is broken or hostile costs one line, and writes no label map."""

import gzip
import ipaddress
import json
import signal
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.errors import InputError, RunError
from attunet.export.serve import Client

MODEL = {"name": "m", "network": "unet", "sha256": "0" * 64, "precision": "fp32", "provider": "cpu", "channels": 1}
MODEL["channel_names"] = []
MODELS = {"models": [{**MODEL, "classes": [{"name": "liver", "value": 1}]}]}
GOOD = {
    "Content-Type": "application/gzip",
    "X-Attunet-Volumes": '{"unit": "ml", "volumes": {"liver": 1.5}}',
    "X-Attunet-Findings": '[{"rule": "spacing", "level": "warning", "text": "coarse", "figure": 3}]',
    "X-Attunet-Model-SHA256": "0" * 64,
}
LABELS = gzip.compress(nib.Nifti1Image(np.zeros((4, 3, 2), np.uint8), np.eye(4)).to_bytes(), mtime=0)
DEEP = "[" * 30_000


class Hostile(ThreadingHTTPServer):
    """Answers GET with `models` and POST with `answer`: status, headers, body."""

    daemon_threads = True
    models: tuple[int, dict[str, str], bytes] = (200, {}, json.dumps(MODELS).encode())
    answer: tuple[int, dict[str, str], bytes] = (200, GOOD, LABELS)


class Handler(BaseHTTPRequestHandler):
    server: Hostile
    pause_s = 0.0  # after each byte
    endless = b""  # sent before each answer, without end

    def log_message(self, *arguments: object) -> None: ...

    def do_GET(self) -> None:
        self._send(*self.server.models)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._send(*self.server.answer)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        with suppress(OSError):  # the client has left
            while self.endless:
                self.wfile.write(self.endless)
                time.sleep(0.01)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if not self.pause_s:
            self.wfile.write(body)
        for index in range(len(body) if self.pause_s else 0):
            with suppress(OSError):  # the client has left
                self.wfile.write(body[index : index + 1])
            time.sleep(self.pause_s)


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    server = Hostile(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(b"a scan")
    return path


def client(server: Hostile) -> Client:
    return Client(f"http://127.0.0.1:{server.server_port}", retry_s=0)


def test_a_good_answer_is_written(hostile: Hostile, scan: Path, tmp_path: Path) -> None:
    answer = client(hostile).segment(scan, tmp_path / "out.nii.gz")
    assert answer.volumes == {"liver": 1.5}
    assert [(finding["rule"], finding["figure"]) for finding in answer.findings] == [("spacing", 3.0)]
    assert (tmp_path / "out.nii.gz").read_bytes() == LABELS


def test_a_series_that_changes_while_it_is_zipped_is_not_written(
    hostile: Hostile, tmp_path: Path, write_series, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pydicom")
    first, *_ = write_series(tmp_path / "series", np.zeros((8, 8, 4), np.int16), np.eye(4))
    zipped = zipfile.ZipFile.write

    def write(archive: zipfile.ZipFile, path: Path, name: str) -> None:
        zipped(archive, path, name)
        first.write_bytes(first.read_bytes() + b"\0")

    monkeypatch.setattr("zipfile.ZipFile.write", write)
    with pytest.raises((InputError, RunError), match="changed"):
        client(hostile).segment(tmp_path / "series", tmp_path / "out.nii.gz")
    assert not (tmp_path / "out.nii.gz").exists()


@pytest.mark.parametrize(
    "models",
    [
        (200, {}, b"hello"),
        (200, {}, b"[]"),
        (200, {}, b"{}"),
        (200, {}, DEEP.encode()),
        (200, {}, b'{"models": ["a"]}'),
        (200, {}, json.dumps({"models": [{**MODEL, "channels": "x", "classes": []}]}).encode()),
        (200, {}, json.dumps({"models": [{"name": "m"}]}).encode()),
        (503, {"Retry-After": "9" * 4500}, b"{}"),
        (302, {"Location": "http://127.0.0.1:1/"}, b""),
        (400, {}, json.dumps({"error": "\x1b[31m evil\nerror: two " + "x" * 100_000}).encode()),
    ],
    ids=["text", "list", "empty", "nested", "model", "channels", "fields", "retry", "redirect", "refusal"],
)
def test_models_that_are_none_are_refused(
    hostile: Hostile, scan: Path, tmp_path: Path, models: tuple[int, dict[str, str], bytes]
) -> None:
    hostile.models = models
    with pytest.raises((RunError, InputError), match=f"127.0.0.1:{hostile.server_port}") as refused:
        client(hostile).segment(scan, tmp_path / "out.nii.gz")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 2500
    assert not (tmp_path / "out.nii.gz").exists()


def test_a_wrong_token_is_the_users_mistake(hostile: Hostile, scan: Path) -> None:
    hostile.models = (401, {}, b'{"error": "Authorization: must be Bearer"}')
    with pytest.raises(InputError, match=r"^Authorization: must be Bearer \(status 401"):
        client(hostile).segment(scan)


def test_a_token_may_have_its_files_line_end(hostile: Hostile) -> None:
    """It was an illegal header, which the error quoted with the token."""
    url = f"http://127.0.0.1:{hostile.server_port}"
    assert Client(url, token="correct-horse-battery\n").models()[0]["name"] == "m"


def test_a_model_that_is_exchanged_meanwhile_is_not_mixed_with_the_one_before(
    attunet, hostile: Hostile, scan: Path, tmp_path: Path
) -> None:
    hostile.answer = (200, {**GOOD, "X-Attunet-Model-SHA256": "1" * 64}, LABELS)
    done = attunet("predict", "--server", client(hostile).url, scan, tmp_path / "out.nii.gz")
    assert (done.code, "its model m is another one now" in done.err) == (1, True)
    assert not (tmp_path / "out.nii.gz").exists()


def test_half_of_a_surrogate_pair_is_no_name(hostile: Hostile, scan: Path) -> None:
    hostile.models = (
        200,
        {},
        b'{"models": [' + json.dumps({**MODEL, "name": "\ud800", "classes": []}).encode() + b"]}",
    )
    with pytest.raises(RunError, match="is no server of attunet"):
        client(hostile).segment(scan)


def test_an_answer_that_drips_ends_with_its_time(hostile: Hostile, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "pause_s", 0.05)
    with pytest.raises(RunError, match=r"not whole within 0\.3 s"):
        Client(f"http://127.0.0.1:{hostile.server_port}", retry_s=0, timeout_s=0.3).segment(scan)


@pytest.mark.parametrize("endless", [b"HTTP/1.1 100 Continue\r\n\r\n", b"H"])
def test_an_answer_that_never_begins_ends_with_its_time(
    hostile: Hostile, scan: Path, monkeypatch: pytest.MonkeyPatch, endless: bytes
) -> None:
    monkeypatch.setattr(Handler, "endless", endless)
    with pytest.raises(RunError, match=r"not whole within 0\.5 s"):
        Client(f"http://127.0.0.1:{hostile.server_port}", retry_s=0, timeout_s=0.5).segment(scan)


def test_a_server_that_is_always_busy_is_asked_once_a_second(hostile: Hostile, scan: Path) -> None:
    hostile.models = (503, {"Retry-After": "0"}, b"{}")
    start = time.monotonic()
    with pytest.raises(RunError, match="no reason given"):
        Client(f"http://127.0.0.1:{hostile.server_port}", retry_s=1.5).segment(scan)
    assert time.monotonic() - start >= 1


@pytest.mark.parametrize("content", [b"anything at all", bytes(128) + b"DICM"])
def test_a_dicom_segmentation_that_is_none_is_not_written(
    hostile: Hostile, scan: Path, tmp_path: Path, content: bytes
) -> None:
    hostile.answer = (200, GOOD | {"Content-Type": "application/dicom"}, content)
    with pytest.raises(RunError, match="label map cannot be read"):
        client(hostile).segment(scan, tmp_path / "out.dcm")
    assert not (tmp_path / "out.dcm").exists()


def test_a_class_may_be_called_as_a_field_is(hostile: Hostile, scan: Path) -> None:
    headers = GOOD | {"X-Attunet-Volumes": '{"unit": "ml", "volumes": {"unit": 2, "volumes": 3}}'}
    hostile.answer = (200, headers, LABELS)
    answer = client(hostile).segment(scan)
    assert (answer.unit, answer.volumes) == ("ml", {"unit": 2.0, "volumes": 3.0})


@pytest.mark.parametrize("status", [200, 400])
def test_json_of_any_size_is_not_parsed(hostile: Hostile, scan: Path, status: int) -> None:
    hostile.models = (status, {}, b'{"models": [' + b"[]," * 2_000_000 + b"[]]}")
    with pytest.raises(RunError, match="larger than 4 MB"):
        client(hostile).segment(scan)


def test_a_name_is_no_part_of_an_address(hostile: Hostile, scan: Path, tmp_path: Path) -> None:
    hostile.models = (200, {}, json.dumps({"models": [{**MODEL, "name": "../../x?y=\n", "classes": []}]}).encode())
    assert client(hostile).segment(scan).volumes == {"liver": 1.5}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"anything"),
        ({}, gzip.compress(b"anything", mtime=0)),
        ({}, LABELS[:-20]),
        ({"Content-Type": "text/html"}, LABELS),
        ({"X-Attunet-Volumes": '{"unit": "ml", "volumes": {"liver": "x"}}'}, LABELS),
        ({"X-Attunet-Volumes": '{"unit": "\\u001b[31m", "volumes": {}}'}, LABELS),
        ({"X-Attunet-Volumes": '{"unit": "ml", "volumes": {"liver": NaN}}'}, LABELS),
        ({"X-Attunet-Findings": "[{}]"}, LABELS),
        ({"X-Attunet-Findings": '["a"]'}, LABELS),
        ({"X-Attunet-Findings": DEEP}, LABELS),
        ({"X-Attunet-Decisions": '[{"rule": 1, "text": "a"}]'}, LABELS),
        ({"X-Attunet-Confidence": '[["review", [1]]]'}, LABELS),
        ({"X-Attunet-Confidence": '{"review": 3}'}, LABELS),
    ],
)
def test_an_answer_that_is_none_is_not_written(
    hostile: Hostile, scan: Path, tmp_path: Path, headers: dict[str, str], body: bytes
) -> None:
    hostile.answer = (200, GOOD | headers, body)
    with pytest.raises(RunError, match="is no server of attunet"):
        client(hostile).segment(scan, tmp_path / "out.nii.gz")
    assert not (tmp_path / "out.nii.gz").exists()


def test_an_answer_is_neither_inflated_nor_read_without_end(
    hostile: Hostile, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = gzip.compress(LABELS)
    hostile.answer = (200, GOOD | {"Content-Encoding": "gzip"}, body)
    assert client(hostile).segment(scan).content == body
    monkeypatch.setattr("attunet.export.serve.client.MAX_ANSWER_MB", 1)
    hostile.answer = (200, GOOD, bytes(2_000_000))
    with pytest.raises(RunError, match="larger than 1 MB"):
        client(hostile).segment(scan, tmp_path / "other.nii.gz")
    assert not (tmp_path / "other.nii.gz").exists()


def test_a_signal_ends_the_clients_that_wait_for_a_busy_server(hostile: Hostile, scan: Path, tmp_path: Path) -> None:
    """Schedulers kill what does not end half a minute after it."""
    hostile.answer = (503, {"Retry-After": "500"}, b"{}")
    (tmp_path / "scans").mkdir()
    scan.rename(tmp_path / "scans" / scan.name)
    command = [sys.executable, "-m", "attunet.launch.cli", "predict", "--server"]
    call = [*command, f"http://127.0.0.1:{hostile.server_port}", tmp_path / "scans", tmp_path / "out"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert any("busy, trying again in 500 s" in line for line in process.stdout)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 128 + signal.SIGTERM
        finally:
            process.kill()
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("[!.]*"))


def own_certificate(path: Path) -> Path:
    """A certificate for 127.0.0.1, which is its own authority, with its key."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now, day = datetime.now(UTC), timedelta(days=1)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = made.add_extension(address, critical=True).sign(key, hashes.SHA256())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(*form) + signed.public_bytes(serialization.Encoding.PEM))
    return path


def test_a_proxy_may_have_a_certificate_of_an_authority_of_ones_own(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = own_certificate(tmp_path / "certificate.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    hostile.socket = tls.wrap_socket(hostile.socket, server_side=True)
    address = f"https://127.0.0.1:{hostile.server_port}"
    with Client(address, retry_s=0) as one, pytest.raises(RunError, match="CERTIFICATE_VERIFY_FAILED"):
        one.models()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Client(address, retry_s=0) as one:
        assert [model["name"] for model in one.models()] == ["m"]
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(InputError, match=r"^SSL_CERT_FILE or SSL_CERT_DIR: the authorities cannot be read"):
        Client(address)
    Client("http://127.0.0.1:9").close()  # needs none
