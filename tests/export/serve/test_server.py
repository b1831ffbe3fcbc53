"""The process: limits of number and time, signals, kills, logs."""

import asyncio
import contextlib
import gzip
import io
import json
import re
import signal
import socket
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import nibabel as nib
import numpy as np
import pytest
import uvicorn
from starlette.requests import Request

import attunet.export.serve.server
from attunet.export.serve.refusal import Refusal
from attunet.export.serve.scans import upload
from attunet.export.serve.server import BoundedProtocol


def large_slices(number: int) -> bytes:
    data = np.random.default_rng(0).integers(0, 50, (16, 16, number)).astype(np.int16)
    image = nib.Nifti1Image(np.repeat(np.repeat(data, 16, axis=0), 16, axis=1), np.diag([-1.6, -1.6, 2, 1]))
    return gzip.compress(image.to_bytes())


@pytest.fixture(scope="module")
def long_scan() -> bytes:
    """A scan that takes the small artefact some seconds."""
    return large_slices(64)


def wait_for(condition, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "did not happen"
        time.sleep(0.02)


def running(server) -> float:
    found = re.search(r"^attunet_queue_running (\S+)", server.get("/metrics").text, re.MULTILINE)
    return float(found[1])


def test_a_full_queue_sends_clients_away_with_a_time_to_come_back(serve):
    """Five clients send without end: three scans are in work, and one waits."""
    server, answers, refused = serve("--max-queue", 1), [], threading.Event()
    scan = large_slices(20)

    def keep_sending() -> None:
        while not refused.is_set() and len(answers) < 50:
            answers.append(server.post("/v1/models/small/segment?answer=summary", scan))
            if answers[-1].status_code == 503:
                refused.set()

    with ThreadPoolExecutor(5) as threads:
        for one in [threads.submit(keep_sending) for _ in range(5)]:
            one.result()
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 3
    for answer in answers:
        if answer.status_code == 503:
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert "queue is full" in answer.json()["error"]
    assert server.uploads() == []


def test_a_full_disk_is_no_fault_of_the_scan_and_clients_come_back(serve, tmp_path):
    """Where a zip archive is unpacked, and where a label map is written."""
    server = serve(limit="--fsize=5000")
    data = np.zeros((40, 48, 5), np.int16)
    data[10:30, 10:30] = 100
    nib.save(nib.Nifti1Image(data, np.diag([-1.5, -1.5, 5, 1])), tmp_path / "scan.nii")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.write(tmp_path / "scan.nii", "scan.nii")
    packed = gzip.compress((tmp_path / "scan.nii").read_bytes())
    for content, headers in ((archive.getvalue(), {}), (packed, {"Accept": "application/x-nifti"})):
        assert len(content) < 5000
        answer = server.post(content=content, headers=headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "30"), answer.text
        assert answer.json()["error"] == "the server cannot keep the scan: its disk is full or fails"
    assert server.post(content=packed).status_code == 200  # a small label map, compressed
    assert server.uploads() == []


def test_time_limits_hold_for_uploads_and_for_work(serve, long_scan, scan):
    server = serve("--timeout", 1)
    with server.connect() as connection:
        connection.sendall(server.head(5000) + b"abc")
        assert connection.recv(4096).startswith(b"HTTP/1.1 408")
    assert server.post(content=long_scan).status_code == 504
    wait_for(lambda: server.uploads() == [] and running(server) == 0)
    assert server.post(content=scan.read_bytes()).status_code == 200


def test_work_stops_when_its_client_leaves(serve, long_scan):
    server = serve()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(server.url + "/v1/models/small/segment", content=long_scan, timeout=0.5)
    wait_for(lambda: running(server) == 0)
    assert server.uploads() == []
    assert any(" 499 " in line for line in server.lines)


def test_slow_clients_do_not_stop_the_others(server, scan, predicted):
    """64 clients send a byte of a head or of a body now and then; others are answered as if they were not there."""
    head, slow = server.head(50000), [server.connect() for _ in range(64)]
    done = threading.Event()

    def trickle() -> None:
        for number in range(10**6):
            for index, connection in enumerate(slow):
                sent = head[number : number + 1] if index % 2 and number < len(head) - 4 else b"a"
                connection.sendall(sent)
            if done.wait(0.2):
                return

    for index, connection in enumerate(slow):
        if index % 2 == 0:
            connection.sendall(head)
    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        for _ in range(5):
            assert server.post(content=scan.read_bytes()).content == predicted
        assert len([path for path in server.uploads() if path.name == "body"]) == 32
    finally:
        done.set()
        thread.join()
        for connection in slow:
            connection.close()
    wait_for(lambda: server.uploads() == [])


CHUNKED = b"Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_body_of_tiny_chunks_is_refused(server, scan, predicted):
    """They would keep the server busy for a thousand times as long as other bodies."""
    with server.connect() as connection:
        large = b"20000\r\n" + bytes(0x20000) + b"\r\n"
        connection.sendall(b"POST /v1/models/small/segment HTTP/1.1\r\n" + CHUNKED + large + b"1\r\nA\r\n" * 66)
        assert b"chunks must have 1,024 bytes" in b"".join(iter(lambda: connection.recv(4096), b""))
    with server.connect() as connection:  # it has its answer already
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\n" + CHUNKED)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"1\r\nA\r\n" * 66)
            wait_for(lambda: connection.recv(4096) == b"", seconds=2)
    wait_for(lambda: server.uploads() == [])
    content = scan.read_bytes() + bytes(200_000)  # gzip has an end of its own
    allowed = [
        *(content[n : n + 1] for n in range(60)),
        *(content[n : n + 1100] for n in range(60, len(content), 1100)),
    ]
    assert server.post(content=iter(allowed)).content == predicted


def test_health_is_answered_while_bodies_take_all_places(server):
    with ExitStack() as stack:
        for _ in range(260):
            stack.enter_context(server.connect()).sendall(server.head(50000) + b"ab")
        wait_for(lambda: server.post(content=b"scan").status_code == 503)
        assert server.get("/v2/health/live").status_code == 200
        assert "attunet_open_requests" in server.get("/metrics").text
    wait_for(lambda: server.uploads() == [])


def test_a_body_that_does_not_come_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(upload, "PATIENCE_S", 0.2)
    sent = iter([{"type": "http.request", "body": b"ab", "more_body": True}])

    async def receive():
        return next(sent, None) or await asyncio.sleep(60)

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    space = upload.SpaceLeft(100)
    with pytest.raises(Refusal, match="1,000 bytes/s") as refused:
        asyncio.run(upload.receive(request, tmp_path, max_mb=1, space=space))
    assert refused.value.status == 408
    assert space.left == 100


def test_a_connection_without_a_whole_head_in_time_is_closed(monkeypatch):
    """uvicorn itself would wait for ever."""
    monkeypatch.setattr(attunet.export.serve.server, "HEADER_S", 0.5)

    async def hello(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    listening = socket.create_server(("127.0.0.1", 0))
    web = uvicorn.Server(uvicorn.Config(hello, http=BoundedProtocol, log_config=None, lifespan="off"))
    thread = threading.Thread(target=web.run, args=([listening],))
    thread.start()
    try:
        with socket.create_connection(listening.getsockname(), timeout=10) as connection:
            for request in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HT"):  # the second head is not finished
                connection.sendall(request)
                start = time.monotonic()
                answer = connection.recv(4096)
            assert answer == b""
            assert time.monotonic() - start < 5
    finally:
        web.should_exit = True
        thread.join()


def test_sigterm_lets_running_requests_finish_and_ends_with_0(serve, long_scan):
    server = serve()
    with ThreadPoolExecutor(1) as threads, server.connect() as upload:
        upload.sendall(server.head(5000) + b"abc")
        answer = threads.submit(server.post, "/v1/models/small/segment", long_scan)
        wait_for(lambda: running(server) == 1)
        server.process.send_signal(signal.SIGTERM)
        assert upload.recv(4096).startswith(b"HTTP/1.1 503")  # it would not have ended
        with pytest.raises(httpx.ConnectError):
            wait_for(lambda: server.get("/v2/health/live") is None)
        assert answer.result().status_code == 200
    assert server.process.wait(30) == 0
    assert list(server.temp.iterdir()) == []
    assert server.lines[-1] == "stopped"


@pytest.mark.usefixtures("hangup")
def test_sighup_ends_as_sigterm_and_removes_the_uploads(serve, long_scan):
    server = serve()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(server.post, "/v1/models/small/segment", long_scan)
        wait_for(lambda: running(server) == 1)
        assert server.stop(signal.SIGHUP) == 0
    assert list(server.temp.iterdir()) == []


def test_after_kill_9_the_next_start_empties_the_folder(serve, long_scan, scan, predicted):
    server = serve()
    with ThreadPoolExecutor(1) as threads:
        broken = threads.submit(server.post, "/v1/models/small/segment", long_scan)
        wait_for(lambda: running(server) == 1)
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        assert isinstance(broken.exception(), httpx.TransportError)
    assert server.uploads() != []
    second = serve()
    assert second.uploads() == []
    third = serve()  # a living server's folder stays
    assert len(list(second.temp.iterdir())) == 2
    assert second.post(content=scan.read_bytes()).content == predicted
    assert third.post(content=scan.read_bytes()).content == predicted


def test_metrics_count(server, scan):
    def count(name: str) -> float:
        match = re.search(rf"^{re.escape(name)} (\S+)", server.get("/metrics").text, re.MULTILINE)
        return float(match[1]) if match else 0.0

    good = 'attunet_requests_total{model="small",route="/v1/models/{name}/segment",status="200"}'
    bad = 'attunet_failures_total{model="small",reason="422",route="/v1/models/{name}/segment"}'
    before = count(good), count(bad)
    server.post(content=scan.read_bytes())
    server.post(content=b"no scan")
    assert (count(good), count(bad)) == (before[0] + 1, before[1] + 1)
    assert count('attunet_stage_seconds_count{model="small",stage="network"}') >= 1
    assert 'attunet_model_info{model="small",precision="fp32",provider="cpu",sha256="' in server.get("/metrics").text


def test_the_log_has_no_text_of_a_request(server):
    with server.connect() as connection:
        connection.sendall(b"PLANTED /planted?planted HTTP/1.1\r\nHost: localhost\r\nX-Planted: planted\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 404")
    wait_for(lambda: any(line.startswith("other none - 404") for line in server.lines))
    assert not any("planted" in line.lower() for line in server.lines)


def test_the_log_can_be_json(serve, scan):
    server = serve("--log-json")
    server.post(content=scan.read_bytes())
    server.get("/nothing")
    server.stop()
    rows = [json.loads(line) for line in server.lines]
    requests = [row for row in rows if row.get("event") == "request"]
    assert [(row["route"], row["model"], row["status"]) for row in requests] == [
        ("/v1/models/{name}/segment", "small", 200),
        ("none", "", 404),
    ]
    assert set(requests[0]["stages"]) == {"upload", "queue", "read", "network", "write"}


UNREAD = 4 * b"GET /niivue.js HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHost: local", UNREAD])
def test_connections_without_a_request_or_that_read_nothing_keep_nobody_out(serve, sent):
    server = serve(limit="--nofile=256")
    with ExitStack() as stack:
        for number in range(400):
            connection = stack.enter_context(server.connect())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            if number % 2:
                with contextlib.suppress(OSError):  # closed by then
                    connection.sendall(sent)
        assert server.get("/v2/health/live").status_code == 200
        assert server.get("/metrics").status_code == 200
    assert server.stop() == 0
    assert not [line for line in server.lines if "Traceback" in line or "accept" in line]
    assert len([line for line in server.lines if '"GET' not in line and "GET /niivue.js" not in line]) < 20


def test_trouble_with_the_audit_log_is_not_the_scans(serve, scan, tmp_path):
    server = serve("--audit", tmp_path / "log.jsonl")
    assert server.post(content=scan.read_bytes()).status_code == 200
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write("garbage\n")
    for content in (scan.read_bytes(), b"no scan" * 100):
        answer = server.post(content=content)
        assert (answer.status_code, "audit log" in answer.text, str(tmp_path) in answer.text) == (503, True, False)
    assert [line for line in server.lines if "audit log: " in line and "log.jsonl" in line]
