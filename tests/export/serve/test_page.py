"""The server's page in a browser: a scan is dropped, its organs are shown; nothing loads from another server."""

import base64
import gzip
import io
import os
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api")
NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (CHROMIUM=PATH names one)")
SIZE = {"width": 960, "height": 600}  # each pixel of the picture takes time without a GPU

DROP = """([name, content]) => {
  const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0)), transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  const drop = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.getElementById("drop").dispatchEvent(drop);
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    """The page, which must log no error and send no request to another server."""
    page = browser.new_page(viewport=SIZE)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith((server.url, "blob:")) else complaints.append(r.url))
    page.goto(server.url)
    yield page
    page.close()
    # The browser itself says that an answer was refused, and NiiVue that it cannot read a file
    assert [c for c in complaints if not re.search("422|^niivue-error", c)] == []


def drop(page, path: Path) -> None:
    page.evaluate(DROP, [path.name, base64.b64encode(path.read_bytes()).decode()])


def shown(page, path: Path) -> None:
    page.wait_for_selector("#model option", state="attached")
    drop(page, path)
    page.wait_for_selector(f"#canvas[data-file='{path.name}']", timeout=60_000)


def pixels(page) -> np.ndarray:
    """What the canvas shows once it is drawn, RGB from 0 to 255."""
    before = b""
    while (picture := page.locator("#canvas").screenshot()) != before:
        before = picture
        page.wait_for_timeout(200)
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)


def coloured(page) -> float:
    """The share of the canvas in a class's colour."""
    return float((np.ptp(pixels(page), axis=2) > 60).mean())


def test_a_dropped_scan_shows_its_organs(page, scan, predicted):
    shown(page, scan)
    assert re.search(r"liver\s+[\d.]+ ml", page.inner_text("#volumes"))
    labels = nib.Nifti1Image.from_bytes(gzip.decompress(predicted)).get_fdata() > 0
    middle = round(np.nonzero(labels)[2].mean())
    assert page.inner_text("#number") == f"{middle + 1} of 5"
    shares = []
    for number in (middle, 0):
        page.fill("#slice", str(number))
        shares.append(coloured(page))
    assert min(shares) > 0.01
    assert shares[0] / shares[1] == pytest.approx(labels[:, :, middle].sum() / labels[:, :, 0].sum(), rel=0.25)
    page.select_option("#view", "sagittal")
    assert page.inner_text("#number").endswith(f" of {labels.shape[0]}")
    page.select_option("#view", "planes")
    page.fill("#opacity", "0")
    assert coloured(page) < 0.01
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "scan-labels.nii.gz"
    assert Path(download.value.path()).read_bytes() == predicted


def test_of_a_scan_that_no_page_can_read_the_label_map_is_shown(page, scan, tmp_path):
    """A zip of DICOM slices, and a picture, are read by the server alone."""
    slices = np.asarray(nib.load(scan).dataobj)
    picture = tmp_path / "scan.tif"
    Image.fromarray(np.clip(slices[:, :, 2].T / slices.max() * 255, 0, 255).astype(np.uint8)).save(picture)
    shown(page, picture)
    assert page.inner_text("#number") == "1 of 1"


def test_the_patients_right_is_on_the_left_whatever_the_storage_order(page, tmp_path):
    """A bright spot at the patient's right, front and top is drawn at the top left of the last slice."""
    for orientation in ("RAS", "LPS", "LAS", "SRA", "PIR", "no codes"):
        data = np.full((24, 32, 4), 100, np.int16)
        data[16:, 22:, 3] = 600
        image = nib.Nifti1Image(data, np.diag([1.5, 1.5, 5.0, 1.0]))
        codes = "LAS" if orientation == "no codes" else orientation
        ras, other = map(nib.orientations.axcodes2ornt, ("RAS", codes))
        image = image.as_reoriented(nib.orientations.ornt_transform(ras, other))
        if orientation == "no codes":  # which are read as LAS
            image = nib.Nifti1Image(image.dataobj, None)
            image.header.set_zooms((1.5, 1.5, 5))
        nib.save(image, tmp_path / f"{orientation}.nii")
        shown(page, tmp_path / f"{orientation}.nii")
        page.fill("#opacity", "0")
        page.fill("#slice", "3")
        grey = pixels(page).mean(axis=2)
        bright = [(part > 200).mean() for half in np.array_split(grey, 2) for part in np.array_split(half, 2, axis=1)]
        assert bright[0] > 0.2, (orientation, bright)
        assert max(bright[1:]) < 0.05, (orientation, bright)


HEADERS = {
    "scan.mha": "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    "Offset = -51.2 -51.2 0\nElementSpacing = 1.6 1.6 5\nDimSize = 64 64 4\nElementType = MET_SHORT\n"
    "ElementDataFile = LOCAL\n",
    "sizes.mha": "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    "TransformMatrix = 1 0 0 0 1 0 0 0 1\nElementSize = 1.6 1.6 5\nDimSize = 64 64 4\nElementType = MET_SHORT\n"
    "ElementDataFile = LOCAL\n",
    "scan.nrrd": "NRRD0004\ntype: short\ndimension: 3\nsizes: 64 64 4\nspacings: 1.6 1.6 5\nendian: little\n"
    "encoding: raw\n\n",
}


@pytest.mark.parametrize("name", HEADERS)
def test_the_scan_lies_where_its_label_map_lies(page, tmp_path, name):
    """NiiVue places scans of such headers elsewhere than their label maps."""
    voxels = np.random.default_rng(0).normal(300, 60, (64, 64, 4)).astype("<i2")
    (tmp_path / name).write_bytes(HEADERS[name].encode() + voxels.tobytes(order="F"))
    page.evaluate("""import('/viewer.js').then(({ Viewer }) => {
      const show = Viewer.prototype.show;
      Viewer.prototype.show = function (volumes, classes) {
        window.places = [volumes.image, volumes.labels].map((volume) => volume.hdr.affine.flat());
        window.corners = [volumes.image, volumes.labels].map((one) => [...one.matRAS, ...one.pixDimsRAS.slice(1)]);
        return show.call(this, volumes, classes);
      };
    })""")
    shown(page, tmp_path / name)
    image, labels = page.evaluate("window.places")
    np.testing.assert_allclose(image, labels)
    np.testing.assert_allclose(np.linalg.norm(np.reshape(image, (4, 4))[:3, :3], axis=0), (1.6, 1.6, 5), rtol=1e-5)
    np.testing.assert_allclose(*page.evaluate("window.corners"))


def test_several_files_are_refused(page):
    page.wait_for_selector("#model option", state="attached")
    page.evaluate("""() => {
      const transfer = new DataTransfer();
      for (const name of ["1.dcm", "2.dcm"]) transfer.items.add(new File(["DICM"], name));
      const event = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
      document.getElementById("drop").dispatchEvent(event);
    }""")
    assert page.inner_text("#status") == "2 files: drop one, the slices of a series as a zip"


def test_no_picture_of_an_earlier_scan_stays_beside_the_next_answer(page, scan, tmp_path):
    shown(page, scan)

    def damage(route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=b"none")

    page.route("**/segment", damage)
    other = Path(shutil.copy(scan, tmp_path / "other.nii.gz"))
    drop(page, other)
    page.get_by_text("other.nii.gz: the label map is not shown").wait_for()
    assert page.is_visible("#volumes")
    assert not page.is_visible("#canvas")
    page.unroute("**/segment")
    shown(page, scan)
    assert page.is_visible("#canvas")


def test_of_two_scans_the_one_chosen_last_is_shown(page, scan, tmp_path):
    """Though the first is read after the second."""
    slow = tmp_path / "slow.nii"
    nib.save(nib.load(scan).slicer[:, :, :3], slow)
    page.evaluate("""() => {
      const read = File.prototype.arrayBuffer, gone = new Promise((resolve) => { window.letGo = resolve; });
      File.prototype.arrayBuffer = async function () {
        if (this.name === "slow.nii") await gone;
        return read.call(this);
      };
    }""")
    page.wait_for_selector("#model option", state="attached")
    drop(page, slow)
    page.wait_for_selector("#answer:not([hidden])")
    shown(page, scan)
    page.evaluate("window.letGo()")
    page.wait_for_timeout(1000)
    assert page.inner_text("#number").endswith(" of 5")
    assert page.get_attribute("#canvas", "data-file") == scan.name


def test_a_server_that_gives_no_answer_is_named(browser, server, scan):
    page = browser.new_page()
    page.goto(server.url)
    page.wait_for_selector("#model option", state="attached")
    page.route("**/segment", lambda route: route.abort())
    drop(page, scan)
    page.wait_for_selector("#status.failed", timeout=10_000)
    assert page.inner_text("#status").startswith(f"{scan.name}: the server gave no answer")
    page.close()


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
