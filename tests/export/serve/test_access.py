"""Access to the server: tokens, hosts, and calls that do not start one."""

import os

import pytest

from attunet.errors import InputError
from attunet.export.serve.settings import read_token


@pytest.fixture
def refused(attunet):
    """`refused("--port", 1)` is the exit code and the line of `attunet serve` that does not start."""

    def call(*arguments: object) -> tuple[int, str]:
        done = attunet("serve", *arguments)
        assert done.err.count("\n") == 1, done.err
        return done.code, done.err

    return call


def test_other_machines_need_a_token(refused, artefact, tmp_path):
    code, line = refused(artefact, "--host", "0.0.0.0", "--port", 0)
    assert (code, "so a token is needed" in line) == (2, True)
    (tmp_path / "token").write_text("short\n")
    code, line = refused(artefact, "--host", "0.0.0.0", "--port", 0, "--token-file", tmp_path / "token")
    assert (code, "at least 16" in line) == (2, True)


def test_a_token_is_a_small_regular_file(tmp_path):
    """Reading a pipe waits for ever, and a device has no end; nothing of what is read is in the line."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "large").write_text("x" * 5000)
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "device", "large", "folder"):
        with pytest.raises(InputError, match=f"{name}: the token cannot be read") as error:
            read_token(tmp_path / name)
        assert "\n" not in str(error.value)


def test_only_pages_without_data_need_no_token(attunet, serve, scan, predicted, tmp_path):
    token = "correct-horse-battery"
    (tmp_path / "token").write_text(token + "\n")
    server = serve("--token-file", tmp_path / "token", "--host", "0.0.0.0")
    server.url = server.url.replace("0.0.0.0", "127.0.0.1")
    good, bad = {"Authorization": f"Bearer {token}"}, {"Authorization": "Bearer wrong-horse-battery"}
    body = scan.read_bytes()
    for headers in ({}, bad, {"Authorization": token}, {"Authorization": "Basic abc"}, {"Authorization": "Bearer"}):
        answer = server.post(content=body, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert server.get("/metrics", headers=headers).status_code == 401
        assert server.get("/v1/models", headers=headers).status_code == 401
    assert server.post(content=body, headers=good).content == predicted
    assert [server.get(path).status_code for path in ("/", "/docs", "/v2/health/live", "/v2/health/ready")] == [200] * 4
    operations = [one for path in server.get("/openapi.json").json()["paths"].values() for one in path.values()]
    named = [one for operation in operations for one in operation.get("parameters", []) if one["name"] == "name"]
    assert named
    assert not any("enum" in one["schema"] for one in named)  # the names of the models
    options = ("--server", server.url, "--token-file", tmp_path / "token")
    done = attunet("predict", *options, scan, tmp_path / "labels.nii.gz")
    assert done.code == 0, done.err
    assert not any(token in line for line in server.lines)


def test_a_page_of_another_site_cannot_use_the_server(server, scan):
    """A site whose name leads to this machine sends its own name, and no answer lets another origin read it."""
    assert server.get("/v1/models", headers={"Host": "evil.example"}).status_code == 421
    assert server.get("/v1/models", headers={"Host": "evil.example:8000"}).status_code == 421
    for host in ("", "localhost.evil.example", "[::1]x", "localhost:8000:1"):
        assert server.get("/v1/models", headers={"Host": host}).status_code == 421, host
    for host in ("localhost:1", "localhost", "127.0.0.1:8000", "[::1]", "[::1]:8000"):
        assert server.get("/v1/models", headers={"Host": host}).status_code == 200, host
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):  # by browsers
        headers = {"Origin": "http://evil.example", "Sec-Fetch-Site": site}
        answer = server.post(content=scan.read_bytes(), headers=headers)
        assert (answer.status_code, site) == (status, site)
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_a_server_behind_a_proxy_has_the_proxys_name(serve, tmp_path):
    """A reverse proxy on the same machine passes on the name that clients know; the token keeps others out."""
    (tmp_path / "token").write_text("correct-horse-battery")
    server = serve("--token-file", tmp_path / "token")
    host, token = {"Host": "scans.hospital.example"}, {"Authorization": "Bearer correct-horse-battery"}
    assert server.get("/v1/models", headers=host).status_code == 401
    assert server.get("/v1/models", headers={**host, **token}).status_code == 200


def test_a_port_in_use_and_a_model_that_is_none_are_one_line(refused, server, artefact, tmp_path):
    port = server.url.rpartition(":")[2]
    code, line = refused(artefact, "--port", port)
    assert (code, f"127.0.0.1:{port}: cannot be listened on" in line) == (1, True)
    for host in ("a..b", "ä..b"):
        code, line = refused(artefact, "--port", 0, "--host", host, "--insecure")
        assert (code, f"{host}:0: cannot be listened on: " in line) == (1, True)
    (tmp_path / "none.onnx").write_bytes(b"none")
    for models, expected in (
        ([tmp_path / "none.onnx"], "none.onnx"),
        ([tmp_path], "is a folder"),
        ([artefact, artefact], "two models have the name"),
        ([f"b/d={artefact}"], "a served model's name"),
    ):
        code, line = refused(*models, "--port", 0)
        assert (code, expected in line) == (2, True), line
