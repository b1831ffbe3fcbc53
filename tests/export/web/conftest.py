"""The page in Chromium: artefacts as sites, served with and without the headers that allow threads."""

import functools
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from attunet.export.web.write_page import PAGE, write_page
from attunet.phantom import generate_case

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Containers have no user namespaces, and no GPU for the viewer's WebGL
ARGUMENTS = ["--no-sandbox", "--enable-unsafe-swiftshader"]
SLICES = slice(10, 18)  # in the middle of a case: each takes a tenth of a second in WebAssembly
SIZE = {"width": 960, "height": 600}  # the narrowest with organs beside the picture: each of its pixels takes time


@contextmanager
def serving(folder: Path, *, isolated: bool = True) -> Iterator[tuple[str, list[str]]]:
    """Address of a static server, and the requested paths. isolated: it sends the headers that allow threads."""
    paths: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            if isolated:
                self.send_header("Cross-Origin-Opener-Policy", "same-origin")
                self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

        def log_message(self, *_: object) -> None:
            paths.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", paths
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


class Page:
    """A tab with the page. `segment` gives the line of an error, or the label map."""

    READY = "#choose-file:not([disabled])"
    TIMEOUT_MS = 120_000

    def __init__(self, tab: Any, folder: Path) -> None:
        self.tab, self.folder = tab, folder

    def segment(self, *files: Path) -> str | nib.Nifti1Image:
        self.choose(*files)
        self.tab.wait_for_selector(f"{self.READY}, #error:not([hidden])", timeout=self.TIMEOUT_MS)
        self.tab.wait_for_selector(self.READY, timeout=self.TIMEOUT_MS)
        if line := self.error:
            return line
        with self.tab.expect_download() as download:
            self.tab.click("#save")
        path = self.folder / download.value.suggested_filename
        download.value.save_as(path)
        return nib.load(path)

    def show(self, *files: Path) -> None:
        """Segments, and waits until the viewer shows the scan."""
        answer = self.segment(*files)
        assert not isinstance(answer, str), answer
        self.tab.wait_for_selector("#canvas[aria-busy='false']", timeout=self.TIMEOUT_MS)

    def picture(self) -> bytes:
        """A PNG file of the viewer, in a frame after the last change."""
        self.tab.evaluate("new Promise((shown) => requestAnimationFrame(() => requestAnimationFrame(shown)))")
        return self.tab.locator("#canvas").screenshot()

    def choose(self, *files: Path) -> None:
        folder = len(files) == 1 and files[0].is_dir()
        self.tab.set_input_files("#folder" if folder else "#file", files[0] if folder else list(files))

    @property
    def error(self) -> str:
        return self.tab.inner_text("#error") if self.tab.is_visible("#error") else ""


@pytest.fixture(scope="module")
def open_page(browser, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Page]:
    """`open_page(address, requests)` opens a tab, and lists the addresses of its requests."""

    def open_it(address: str, requests: list[str] | None = None) -> Page:
        tab = browser.new_page(viewport=SIZE, reduced_motion="reduce")
        if requests is not None:
            tab.on("request", lambda request: requests.append(request.url))
        tab.goto(address)
        tab.wait_for_selector(Page.READY, timeout=Page.TIMEOUT_MS)
        return Page(tab, tmp_path_factory.mktemp("downloads"))

    return open_it


@pytest.fixture(scope="module")
def page(site: Path, serve_folder, open_page) -> Iterator[Page]:
    """The fp32 page with as many threads as the machine has, shared by tests: it has to go on after each."""
    with serve_folder(site) as (address, _):
        opened = open_page(address)
        yield opened
        opened.tab.close()


@pytest.fixture(scope="session")
def save_case() -> Callable[..., Path]:
    """`save_case(folder, "RPI")` writes slices of a generated case as NIfTI, stored along these axes."""

    def save(folder: Path, codes: str = "LAS", slices: slice = SLICES) -> Path:
        case = generate_case(3, 0, reduce=4)
        here, wanted = nib.orientations.io_orientation(case.affine), nib.orientations.axcodes2ornt(codes)
        image = nib.Nifti1Image(case.image, case.affine).slicer[:, :, slices]
        turned = image.as_reoriented(nib.orientations.ornt_transform(here, wanted))
        turned.header.set_qform(turned.affine, code=1)
        turned.header.set_sform(turned.affine, code=2)
        nib.save(turned, folder / "scan.nii.gz")
        return folder / "scan.nii.gz"

    return save


@pytest.fixture
def scan(save_case, tmp_path: Path) -> Path:
    return save_case(tmp_path)


@pytest.fixture
def predicted(attunet, tmp_path: Path) -> Callable[[Path, Path], nib.Nifti1Image]:
    """`predicted(model, scan)` is the label map of the command line."""

    def predict(model: Path, scan: Path) -> nib.Nifti1Image:
        done = attunet("predict", model, scan, tmp_path / "predicted.nii.gz")
        assert done.code == 0, done.err
        return nib.load(tmp_path / "predicted.nii.gz")

    return predict


@pytest.fixture(scope="session")
def int8_artefact(graph: bytes, save_artefact) -> Path:
    """The small network in int8, calibrated on slices of a generated case, as an export is on those of a store."""
    import onnx

    from attunet.export.build.precision import to_int8
    from attunet.export.build.upsampling import upsample_by_pixel_shuffle

    model = onnx.utils.Extractor(onnx.load_from_string(graph)).extract_model(["slices"], ["labels", "logits"])
    upsample_by_pixel_shuffle(model)
    image = generate_case(3, 0, reduce=4).image.astype(np.float32)
    slices = np.moveaxis((image - image.mean()) / image.std(), 2, 0)[:, None]
    side = [length // 16 * 16 for length in slices.shape[2:]]
    quantized = to_int8(model, np.ascontiguousarray(slices[:, :, : side[0], : side[1]]))
    content = quantized.SerializeToString()
    return save_artefact("int8.onnx", content, precision="int8", outputs=("labels", "logits"))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, built_page: Path, artefact: Path) -> Path:
    folder = tmp_path_factory.mktemp("site") / "web"
    write_page(artefact, folder)
    return folder
