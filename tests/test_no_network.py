"""No command connects to, or looks up, another machine, and none writes to the home folder."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from watched import Watched

from attunet.export.web.write_page import PAGE


@pytest.fixture
def watched(tmp_path) -> Watched:
    return Watched(tmp_path)


def test_the_watcher_sees_what_leaves(watched):
    script = """
import ctypes, socket
calls = (
    lambda: socket.getaddrinfo("somewhere.invalid", 80),
    lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
    lambda: socket.gethostbyname_ex("elsewhere.invalid"),
    lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"a", ("192.0.2.2", 53)),
    lambda: socket.socket(type=socket.SOCK_DGRAM).sendmsg([b"a"], [], 0, ("192.0.2.3", 53)),
    lambda: ctypes.CDLL(None).gethostbyname(b"nowhere.invalid"),
)
for call in calls:
    try:
        call()
    except OSError:
        pass
listening = socket.create_server(("127.0.0.1", 0))
socket.create_connection(listening.getsockname()).close()
"""
    watched.run("-c", script)
    assert watched.seen == [
        "lookup somewhere.invalid",
        "connect 192.0.2.1",
        "lookup elsewhere.invalid",
        "sendto 192.0.2.2",
        "sendmsg 192.0.2.3",
        "lookup nowhere.invalid",
    ]


FEW = ("--provider", "cpu", "--precision", "fp32", "--latency-seconds", 0.05)
QUICK = [f"--set={setting}" for setting in ("model.base_width=4", "model.depth=2", "optim.epochs=1")]


@pytest.mark.slow
def test_no_command_reports_anything_or_writes_to_the_home_folder(watched, source, tmp_path):
    for package in ("fastapi", "httpx", "jinja2"):
        pytest.importorskip(package)
    demo, attunet = tmp_path / "demo", watched.attunet
    store, run, model = (demo / name for name in ("store", "runs/unet", "models/unet.onnx"))
    scan, key, log = sorted(source.glob("*src*"))[0], tmp_path / "key.pem", tmp_path / "log.jsonl"
    make_key(key)
    predict = ["predict", model, scan]
    page = [["web", model, tmp_path / "page"]] if (PAGE / "index.html").is_file() else []
    openvino = [[*predict, tmp_path / "of-openvino.nii.gz", "--provider", "openvino"]] if find_spec("openvino") else []
    attunet(
        ["phantom", tmp_path / "generated", "--cases", 1],
        ["demo", "--out", demo, "--data", source, *QUICK],  # prepare, train, export, evaluate, report
        [*predict, tmp_path / "labels.nii.gz", "--audit", log],
        ["inspect", store, "--picture", tmp_path / "store.png", "--augmented", tmp_path / "augmented.png"],
        ["inspect", run, "--lineage"],
        ["card", model, "-o", tmp_path / "card.md"],
        ["sign", model, "--key", key],
        ["verify", model, "--key", key.with_suffix(".public")],
        ["verify", "--audit", log],
        *page,
        ["crossvalidate", store, tmp_path / "cv", "--model", "unet", "--folds", "0", "--config", "demo", *QUICK],
        ["benchmark", model, store, "--out", tmp_path / "benchmark", *FEW],
        *openvino,
        before="import trainings_here; trainings_here.shorten()",
    )
    with watched.server(model, tmp_path / "uploads") as address:
        attunet(["predict", "--server", address, scan, tmp_path / "served.nii.gz"])
    assert (tmp_path / "served.nii.gz").read_bytes() == (tmp_path / "labels.nii.gz").read_bytes()
    assert watched.seen == []
    left = [path.relative_to(watched.home) for path in watched.home.rglob("*") if path.is_file()]
    assert [path for path in left if "matplotlib" not in str(path)] == []  # matplotlib keeps its list of fonts


def make_key(path: Path) -> None:
    """A private elliptic-curve key, and the public one beside it."""
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric import ec

    key, encoding = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    private = (encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(*private))
    public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".public").write_bytes(public)


@pytest.mark.slow
def test_the_server_reports_nothing(watched, tmp_path):
    pytest.importorskip("fastapi")
    script = """
import asyncio, sys, threading, time, urllib.request
from attunet.export.serve.server import _listen, _Server
from attunet.system.private_folder import PrivateFolder
from attunet.export.serve.service import Service
from attunet.export.serve.settings import Settings
settings = Settings(port=0)
with PrivateFolder() as folder:
    listening = _listen(settings)
    server = _Server(Service(settings, {}, folder))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    url = "http://127.0.0.1:%d" % listening.getsockname()[1]
    for path in ("/", "/docs", "/metrics", "/v1/models", "/openapi.json"):
        urllib.request.urlopen(url + path, timeout=20).read()
    server.should_exit = True
    thread.join()
"""
    watched.run("-c", script)
    assert watched.seen == []
    assert list(watched.home.iterdir()) == []
