"""The page in Chromium: artefacts as sites, served with and without the headers that allow threads."""

import functools
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.artefact_file import write_artefact
from attunet.export.web.write_page import PAGE, write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Containers have no user namespaces, and no GPU for the viewer's WebGL
ARGUMENTS = ["--no-sandbox", "--enable-unsafe-swiftshader"]


@contextmanager
def serving(folder: Path, *, isolated: bool = True) -> Iterator[tuple[str, list[str]]]:
    """The address of a static server, and the paths that it was asked for. isolated:
    it sends the headers that allow threads.
    """
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            if isolated:
                self.send_header("Cross-Origin-Opener-Policy", "same-origin")
                self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", asked
    finally:
        server.shutdown()
        server.server_close()


Serving = Callable[..., AbstractContextManager[tuple[str, list[str]]]]


@pytest.fixture(scope="session")
def serve_folder() -> Serving:
    return serving


@pytest.fixture(scope="session")
def built_page() -> Path:
    if not (PAGE / "index.html").is_file():
        pytest.skip("the page is not built: make web")
    return PAGE


@pytest.fixture(scope="module")  # while it runs, nothing else in this process may start an event loop
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def int8_artefact(tmp_path_factory: pytest.TempPathFactory, network, metadata: Artefact) -> Path:
    """The small network in int8, calibrated on the noise that its statistics come from."""
    import torch

    from attunet.export.build.graph import export_graph
    from attunet.export.build.precision import to_int8
    from attunet.export.build.upsampling import upsample_by_pixel_shuffle

    model = export_graph(network, 1, ("labels", "logits"))
    upsample_by_pixel_shuffle(model)
    torch.manual_seed(1)
    quantized = to_int8(model, [torch.randn(4, 1, 64, 64).numpy() for _ in range(4)])
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    path.write_bytes(
        write_artefact(quantized.SerializeToString(), replace(metadata, precision="int8", outputs=("labels", "logits")))
    )
    return path


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, built_page: Path, artefact: Path) -> Path:
    folder = tmp_path_factory.mktemp("site") / "web"
    write_page(artefact, folder)
    return folder
