"""The server's page in a browser: a scan is dropped, its organs are shown; nothing loads from another server."""

import base64
import gzip
import os
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

playwright = pytest.importorskip("playwright.sync_api")
NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (CHROMIUM=PATH names one)")

DROP = """([name, content]) => {
  const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0)), transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  const drop = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.getElementById("drop").dispatchEvent(drop);
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    """The page, which must log no error and send no request to another server."""
    page = browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith((server.url, "blob:")) else complaints.append(r.url))
    page.goto(server.url)
    yield page
    page.close()
    assert [c for c in complaints if "422" not in c] == []  # the browser itself says that an answer was refused


def drop(page, path: Path) -> None:
    page.evaluate(DROP, [path.name, base64.b64encode(path.read_bytes()).decode()])


def test_a_dropped_scan_shows_its_organs(page, scan, predicted, tmp_path):
    page.wait_for_selector("#model option", state="attached")
    drop(page, scan)
    page.wait_for_selector("#answer:not([hidden])", timeout=60_000)
    page.wait_for_selector("#canvas[data-file='scan.nii.gz']")
    assert re.search(r"liver\s+[\d.]+ ml", page.inner_text("#volumes"))
    labels = nib.Nifti1Image.from_bytes(gzip.decompress(predicted)).get_fdata()
    fullest = int((labels > 0).sum(axis=(0, 1)).argmax())
    assert page.inner_text("#number") == f"{fullest + 1} of 5"
    assert int(page.get_attribute("#canvas", "data-labelled")) == (labels[:, :, fullest] > 0).sum()
    page.fill("#slice", "0")
    assert int(page.get_attribute("#canvas", "data-labelled")) == (labels[:, :, 0] > 0).sum()
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "scan-labels.nii.gz"
    assert Path(download.value.path()).read_bytes() == predicted


def test_the_patients_right_is_on_the_left_whatever_the_storage_order(page, tmp_path):
    """A bright spot at the patient's right, front and top is drawn at the top left of the last slice."""
    page.wait_for_selector("#model option", state="attached")
    for orientation in ("RAS", "LPS", "LAS", "SRA", "PIR"):
        data = np.full((24, 32, 4), 100, np.int16)
        data[16:, 22:, 3] = 600
        image = nib.Nifti1Image(data, np.diag([1.5, 1.5, 5.0, 1.0]))
        ras, other = (nib.orientations.axcodes2ornt(codes) for codes in ("RAS", orientation))
        nib.save(image.as_reoriented(nib.orientations.ornt_transform(ras, other)), tmp_path / f"{orientation}.nii")
        drop(page, tmp_path / f"{orientation}.nii")
        page.wait_for_selector(f"#canvas[data-file='{orientation}.nii']", timeout=60_000)
        page.fill("#opacity", "0")
        page.fill("#slice", "3")
        means = page.evaluate(
            """() => {
              const c = document.getElementById("canvas"), drawn = c.getContext("2d");
              const at = (x, y) => drawn.getImageData(x * c.width, y * c.height, 1, 1).data[0];
              return [at(0.15, 0.15), at(0.85, 0.15), at(0.15, 0.85), at(0.85, 0.85)];
            }"""
        )
        assert means[0] > 200, (orientation, means)
        assert max(means[1:]) < 100, (orientation, means)


def test_a_refusal_is_read_in_its_own_words(page, tmp_path):
    (tmp_path / "none.nii").write_bytes(b"none")
    page.wait_for_selector("#model option", state="attached")
    drop(page, tmp_path / "none.nii")
    page.wait_for_selector("#status.failed")
    assert page.inner_text("#status").startswith("scan: must be NIfTI")


def test_the_description_is_a_page_without_scripts(page, server):
    page.goto(server.url + "/docs")
    assert "POST /v1/models/{name}/segment" in page.inner_text("main")
    assert page.query_selector("script") is None
