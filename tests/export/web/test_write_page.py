"""`attunet web` and `attunet export --web`: the written files, and refusals in one line."""

import json
import os
import re
from pathlib import Path
from typing import NoReturn

import pytest

from attunet.errors import InputError
from attunet.export.web import write_page as module
from attunet.export.web.write_page import require_page, write_page
from attunet.system import lock
from attunet.system.atomic_files import write_folder

ROOT = Path(__file__).parents[3]


def test_a_folder_has_all_files_of_its_page(attunet, built_page: Path, artefact: Path, tmp_path: Path) -> None:
    done = attunet("web", artefact, tmp_path / "web")
    assert done.code == 0, done.err
    assert "python -m http.server" in done.out
    names = {path.name for path in (tmp_path / "web").iterdir()}
    scripts = {"page.js", "worker-wasm.js", "worker-webgpu.js"}
    assert {"index.html", "page.css", "model.onnx", "THIRD_PARTY.txt", *scripts} <= names
    assert (tmp_path / "web/model.onnx").read_bytes() == artefact.read_bytes()
    for name in re.findall(r'(?:src|href)="([^":]+)"', (tmp_path / "web/index.html").read_text(encoding="utf-8")):
        assert name in names
    assert attunet("web", artefact, tmp_path / "web").code == 0, "an earlier page is replaced"


def test_an_int8_page_leaves_out_the_gpus_part(built_page: Path, int8_artefact: Path, tmp_path: Path) -> None:
    write_page(int8_artefact, tmp_path / "web")
    assert not list((tmp_path / "web").glob("*asyncify*"))


def test_one_file_has_everything_inside(built_page: Path, artefact: Path, tmp_path: Path) -> None:
    write_page(artefact, tmp_path / "one.html")
    text = (tmp_path / "one.html").read_text(encoding="utf-8")
    head = text[: text.index("<script")]
    assert "connect-src" not in head  # default-src 'none' forbids every connection
    assert re.search(r"script-src 'sha256-[^']+' blob: 'wasm-unsafe-eval'", head)
    assert not re.findall(r'<(?:script|link)[^>]*(?:src|href)="(?!data:)', head)


def test_a_folder_with_other_files_is_left_alone(built_page: Path, artefact: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match="must be a new folder, or one that holds nothing but an earlier page"):
        write_page(artefact, tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("name", ["robots.txt", ".htaccess", "scans/case.nii.gz"])
def test_a_users_own_file_in_a_page_stays(built_page: Path, artefact: Path, tmp_path: Path, name: str) -> None:
    web = tmp_path / "web"
    write_page(artefact, web)
    (web / name).parent.mkdir(exist_ok=True)
    (web / name).write_text("mine")
    with pytest.raises(InputError, match=f"an earlier page, and there is {re.escape(Path(name).parts[0])}"):
        write_page(artefact, web)
    assert (web / name).read_text() == "mine"


def test_the_current_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for out in (Path(), Path("..", tmp_path.name)):
        with pytest.raises(InputError, match=r"must not be the current folder"):
            require_page(out)


def test_a_checkpoint_is_no_page(artefact: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "step", {"weights": lambda path: path.write_text("weights")})
    for _ in range(2):
        with pytest.raises(InputError, match=r"an earlier page, and there is (index\.html|manifest\.json)"):
            require_page(tmp_path / "step")
        (tmp_path / "step/index.html").write_text("mine")


def test_a_page_behind_a_link_is_replaced_where_it_lies(built_page: Path, artefact: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "web").symlink_to(tmp_path / "disk")
    for _ in range(2):
        write_page(artefact, tmp_path / "web")
    assert (tmp_path / "web").is_symlink()
    assert (tmp_path / "disk/model.onnx").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "web"}


def test_a_second_call_is_refused_and_what_a_killed_one_left_goes(
    built_page: Path, artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(_path: Path) -> NoReturn:
        with pytest.raises(InputError, match="web: in use by process"):
            module.write_page(artefact, tmp_path / "web")
        os.rename(tmp_path / "web", tmp_path / "web.replaced")  # as if killed between the two renames
        raise KeyboardInterrupt

    write_page(artefact, tmp_path / "web")
    monkeypatch.setattr(lock, "POLL_S", 0.02)
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    monkeypatch.setattr(lock, "_is_gone", lambda content: False)  # both calls are of this process
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_artefact", meanwhile)
        with pytest.raises(KeyboardInterrupt):
            write_page(artefact, tmp_path / "web")
    write_page(artefact, tmp_path / "web")
    assert [path.name for path in tmp_path.iterdir()] == ["web"]


@pytest.mark.parametrize("option", [("--whole",), ("--triton", "organs")])
def test_an_export_that_no_page_can_run_is_refused_before_the_work(
    attunet, built_page: Path, tmp_path: Path, option: tuple[str, ...]
) -> None:
    done = attunet("export", tmp_path / "run", tmp_path / "model.onnx", "--web", tmp_path / "web", *option)
    assert (done.code, "leave out --whole and --triton" in done.err) == (2, True)


@pytest.mark.parametrize("out", ["web", "web/model.onnx"])
def test_an_export_into_its_own_page_is_refused_before_the_work(
    attunet, built_page: Path, tmp_path: Path, out: str
) -> None:
    done = attunet("export", tmp_path / "run", tmp_path / out, "--web", tmp_path / "web")
    assert (done.code, f"{tmp_path / out}: must lie outside of the page" in done.err) == (2, True)


def test_a_file_that_is_no_artefact_is_refused(built_page: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"hello")
    with pytest.raises(InputError, match="not an ONNX model"):
        write_page(tmp_path / "model.onnx", tmp_path / "web")
    assert not (tmp_path / "web").exists()


def test_without_the_built_page_one_line_says_what_to_do(monkeypatch, artefact: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "PAGE", tmp_path / "nowhere")
    with pytest.raises(InputError, match="run `make web` in the clone"):
        write_page(artefact, tmp_path / "web")


def test_a_model_too_large_for_one_file_asks_for_a_folder(
    monkeypatch, built_page: Path, artefact: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "MAX_EMBEDDED_BYTES", 1000)
    with pytest.raises(InputError, match="name a folder"):
        write_page(artefact, tmp_path / "one.html")


def test_every_bundled_package_is_named_with_its_licence(built_page: Path) -> None:
    text = (built_page / "THIRD_PARTY.txt").read_text(encoding="utf-8")
    packages = json.loads((ROOT / "export/web/package.json").read_text(encoding="utf-8"))["dependencies"]
    parts = text.split("-" * 80)
    for name, version in packages.items():
        assert any(part.strip().startswith(f"{name} {version}") and "Copyright" in part for part in parts), name


def test_the_lock_file_names_no_registry() -> None:
    lock = json.loads((ROOT / "export/web/package-lock.json").read_text(encoding="utf-8"))
    assert not [name for name, entry in lock["packages"].items() if "resolved" in entry]
    assert all("integrity" in entry for name, entry in lock["packages"].items() if name)
