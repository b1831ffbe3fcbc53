"""An artefact as a web page: a folder of static files for any web server, or one HTML file that opens from disk.

The page itself is built by `make web` into `page/`, which the wheel carries and the repository does not.
"""

import base64
import gzip
import hashlib
import logging
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from attunet.errors import InputError
from attunet.export.artefact.artefact_file import load_artefact
from attunet.fields import read_json
from attunet.system.atomic_files import MANIFEST, write_folder, write_text
from attunet.system.lock import writing

logger = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
INDEX, MODEL = "index.html", "model.onnx"
WEBGPU = ("worker-webgpu.js", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
SINGLE = "worker-single.js"
EMBEDDED = (SINGLE, "ort-wasm-simd-threaded.wasm", "THIRD_PARTY.txt")
MAX_EMBEDDED_BYTES = 64 * 2**20  # browsers parse a page of twice this size slowly or not at all


def page_files() -> dict[str, Path]:
    """The built page's files by name, all but `model.onnx`. Raises InputError where the page was not built."""
    if not (PAGE / INDEX).is_file():
        raise InputError(
            "the page for browsers is not built: run `make web` in the clone (it needs npm), or install attunet from a "
            "wheel"
        )
    return {path.name: path for path in sorted(PAGE.iterdir())}


def require_page(out: Path) -> None:
    """Raises InputError for a folder that holds anything but an earlier page, whose manifest names its files."""
    if out.suffix.lower() == ".html" or not out.exists():
        return
    held = sorted(path.name for path in out.iterdir()) if out.is_dir() else [out.name]
    own: set[str] = set()
    if {INDEX, MANIFEST} <= set(held):
        with suppress(InputError):  # the manifest of another product
            own = {MANIFEST, *read_json(out / MANIFEST).texts("sha256")}
    if others := [name for name in held if name not in own]:
        rule = "must be a new folder, or one that holds nothing but an earlier page"
        raise InputError(f"{out}: {rule}, and there is {others[0]}: name another folder, or move it")
    if out.samefile("."):
        raise InputError(f"{out}: must not be the current folder, which a new one replaces: name it from elsewhere")


def write_page(model: Path | str, out: Path | str) -> None:
    """Write the page that segments scans with an artefact in a browser into a new folder, one with an earlier page, or
    an `.html` file that will hold everything. Raises InputError for a file that is no artefact, a folder with other
    files, a page that is not built, or a model too large for one HTML file.
    """
    with writing(Path(out), "page"):
        _write(Path(model), Path(out), page_files())


def _write(model: Path, out: Path, files: dict[str, Path]) -> None:
    require_page(out)
    metadata, content = load_artefact(model)
    if metadata.whole:
        raise InputError(f"{model}: takes a whole volume, the page gives it slices: export it without --whole")
    if out.suffix.lower() == ".html":
        if len(content) > MAX_EMBEDDED_BYTES:
            raise InputError(
                f"{out}: one HTML file holds a model of at most {MAX_EMBEDDED_BYTES:,} bytes, got {len(content):,}; "
                "name a folder"
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, _single_file(files, content))
        logger.info(f"{out}: {out.stat().st_size / 1e6:.1f} MB, opens from disk")
        return
    unused = {SINGLE, *(WEBGPU if metadata.precision == "int8" else ())}
    write: dict[str, Callable[[Path], object]] = {MODEL: lambda path: path.write_bytes(content)}
    write |= {name: partial(shutil.copyfile, path) for name, path in files.items() if name not in unused}
    write_folder(out.resolve(), write)
    size = sum(path.stat().st_size for path in out.iterdir())
    logger.info(f"{out}: {size / 1e6:.1f} MB; serve it with: python -m http.server --directory {out}")


def _single_file(files: dict[str, Path], model: bytes) -> str:
    """The page with everything inside: scripts run by their hash alone, and no connection is allowed."""
    html = files[INDEX].read_text(encoding="utf-8")
    script = files["page.js"].read_text(encoding="utf-8").replace("</script", "<\\/script")
    style = files["page.css"].read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}' blob: 'wasm-unsafe-eval'; worker-src blob:; "
        f"style-src '{_hash(style)}'; img-src blob: data:; base-uri 'none'; form-action 'none'"
    )
    contents = {name: files[name].read_bytes() for name in EMBEDDED} | {MODEL: model}
    packed = {name: base64.b64encode(gzip.compress(data, mtime=0)).decode() for name, data in contents.items()}
    blocks = "\n".join(f'<script type="text/plain" id="file:{name}">{text}</script>' for name, text in packed.items())
    # The template's own places first: the bundle holds HTML in strings.
    html = _replaced(html, r"</body>", f"{blocks}\n</body>")
    html = _replaced(html, r'(?<=Content-Security-Policy" content=")[^"]*', policy)
    html = _replaced(html, r'<link rel="stylesheet"[^>]*>', f"<style>{style}</style>")
    return _replaced(html, r'<script type="module"[^>]*></script>', f'<script type="module">{script}</script>')


def _replaced(html: str, pattern: str, text: str) -> str:
    """`html` with the first match replaced; there must be one."""
    match = re.search(pattern, html)
    assert match is not None, pattern
    return html[: match.start()] + text + html[match.end() :]


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
