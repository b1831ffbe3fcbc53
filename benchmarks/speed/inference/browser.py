"""A scan in the browser beside ONNX Runtime:
`python -m attunet.benchmarks.speed.inference.browser MODEL [--threads 1,2] [--json FILE]`.

Seconds for a generated scan of 30 slices, from its file to its label map's file, in Chromium's WebAssembly and in
`attunet predict`'s runtime with as many threads, in turns. Needs the built page and Playwright with Chromium. Prints a
table and one JSON line.
"""

import functools
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib

from attunet.benchmarks.evaluation.results_table import Json, format_table
from attunet.benchmarks.speed.program import choices, numbers, percentile_fields, program_parser, run_program
from attunet.errors import InputError
from attunet.export.runtime.segmenter import Segmenter
from attunet.export.web.write_page import page_files, write_page
from attunet.io.writers import write_labels
from attunet.phantom import generate_case
from attunet.system.environment import environment
from attunet.system.private_folder import PrivateFolder

if TYPE_CHECKING:
    from playwright.sync_api import Page

SLICES = 30
READY = "#choose-file:not([disabled])"
TIMEOUT_MS = 600_000
COLUMNS = {
    "where": "{where}",
    "threads": "{threads}",
    **{f"s {p}": f"{{s_{p}:.2f}}" for p in ("p20", "p50", "p80")},
}


class IsolatedHandler(SimpleHTTPRequestHandler):
    """A static server with the headers without which a browser gives a page one thread."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        return


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(IsolatedHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def write_scan(folder: Path) -> Path:
    """A generated case of `SLICES` slices, as a file."""
    cases = (generate_case(0, index) for index in range(100))
    case = next(case for case in cases if case.image.shape[2] >= SLICES)
    path = folder / "scan.nii.gz"
    nib.save(nib.Nifti1Image(case.image[:, :, :SLICES], case.affine), path)
    return path


def in_browser(tab: "Page", address: str, threads: int, scan: Path) -> float:
    """Seconds from the chosen file to the label map."""
    tab.goto(f"{address}?provider=wasm&threads={threads}")
    tab.wait_for_selector(READY, timeout=TIMEOUT_MS)
    tab.set_input_files("#file", scan)
    tab.wait_for_selector("#result:not([hidden])", timeout=TIMEOUT_MS)
    return float(tab.get_attribute("#scan-facts", "data-seconds") or "nan")


def native(segmenter: Segmenter, scan: Path, out: Path) -> float:
    start = time.perf_counter()
    prediction = segmenter.predict_file(scan)
    write_labels(out, prediction.indices, segmenter.classes, prediction.volume)
    return time.perf_counter() - start


def benchmark(model: Path, threads: list[int], rounds: int) -> Json:
    """Rows as JSON values, and the bytes of the page."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise InputError("this needs playwright, which is not installed: pip install playwright") from None
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise InputError("chromium: must be installed, and is not on the PATH")
    seconds: dict[tuple[str, int], list[float]] = {}
    with PrivateFolder() as place, sync_playwright() as playwright:
        folder = place.path
        scan = write_scan(folder)
        write_page(model, folder / "web")
        segmenters = {count: Segmenter(model, num_threads=count) for count in threads}
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--enable-unsafe-swiftshader"]
        )
        version = browser.version
        with serving(folder / "web") as address:
            for _ in range(rounds):
                for count in threads:
                    tab = browser.new_page()
                    seconds.setdefault(("browser", count), []).append(in_browser(tab, address, count, scan))
                    tab.close()
                    taken = native(segmenters[count], scan, folder / "labels.nii.gz")
                    seconds.setdefault(("native", count), []).append(taken)
        browser.close()
    return {
        "environment": environment(),
        "model": model.name,
        "precision": segmenters[threads[0]].metadata.precision,
        "chromium": version,
        "slices": SLICES,
        "page_bytes": {name: path.stat().st_size for name, path in page_files().items()},
        "rows": [
            {"where": where, "threads": count, **percentile_fields(times, "s_p{}")}
            for (where, count), times in seconds.items()
        ],
    }


def table(results: Json) -> str:
    return format_table(results["rows"], COLUMNS)


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument("model", type=Path, help="an artefact, fp32 or int8")
    parser.add_argument("--threads", type=numbers, default=[1, 2], metavar="N,...")
    parser.add_argument("--rounds", type=int, default=3)
    run_program("inference.browser", parser, lambda options: benchmark(**choices(options)), table)


if __name__ == "__main__":
    main()
