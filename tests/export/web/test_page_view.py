"""The page's viewer, its accessibility, and the requests that it sends."""

import io
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")


def test_a_scan_can_be_dropped(page) -> None:
    page.tab.evaluate(
        """() => {
            const transfer = new DataTransfer();
            transfer.items.add(new File(["hello"], "dropped.txt"));
            document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }"""
    )
    page.tab.wait_for_selector("#error:not([hidden])", timeout=page.TIMEOUT_MS)
    assert page.error.startswith("dropped.txt: .txt is not read")
    page.tab.wait_for_selector(page.READY)


def test_nothing_leaves_the_pages_own_origin(site: Path, serve_folder, open_page, scan: Path, tmp_path: Path) -> None:
    """The page, its worker and ONNX Runtime's threads send requests to their own server alone."""
    (tmp_path / "outside").mkdir()
    with serve_folder(site) as (address, _), serve_folder(tmp_path / "outside") as (outside, paths):
        requests: list[str] = []
        page = open_page(f"{address}?threads=2", requests)
        assert "2 threads" in page.tab.inner_text("#engine")
        assert not isinstance(page.segment(scan), str)
        assert {url for url in requests if not url.startswith((address, "blob:" + address, "data:"))} == set()
        leak = f"fetch('{outside}leak').then(() => 'sent', () => 'refused')"
        assert page.tab.evaluate(leak) == "refused"
        worker, *threads = page.tab.workers
        assert worker.evaluate(leak) == "refused"
        assert threads  # they wait for work and answer nobody; a blob's script has the policy of the page
        assert all(thread.url.startswith("blob:") for thread in threads)
        page.tab.close()
    assert paths == []


def test_a_server_without_the_headers_runs_one_thread(site: Path, serve_folder, open_page) -> None:
    with serve_folder(site, isolated=False) as (address, _):
        page = open_page(f"{address}?provider=wasm&threads=2")
        assert page.tab.inner_text("#engine").endswith("1 thread")
        page.tab.close()


def test_the_viewer_shows_the_labels_and_hides_a_class(page, scan: Path) -> None:
    page.show(scan)
    shown = page.picture()
    page.tab.locator("#volumes input").first.uncheck()
    assert page.picture() != shown
    before = int(page.tab.input_value("#slice"))
    page.tab.locator("#canvas").focus()
    page.tab.keyboard.press("ArrowUp")
    assert int(page.tab.input_value("#slice")) == before + 1
    assert "slice" in page.tab.get_attribute("#slice", "aria-valuetext")


def test_axis_0_runs_to_the_left_in_a_nifti_file_that_states_no_orientation(page, scan: Path, tmp_path: Path) -> None:
    """As the page reads it: the picture is that of a file that says so."""
    image, pictures = nib.load(scan), []
    for code in (1, 0):
        header = image.header.copy()
        header.set_qform(np.diag([-1.0, 1.0, 1.0, 1.0]) @ np.diag([*header.get_zooms(), 1.0]), code)
        header.set_sform(header.get_qform(), code)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, header), tmp_path / f"{code}.nii")
        page.show(tmp_path / f"{code}.nii")
        pictures.append(np.asarray(Image.open(io.BytesIO(page.picture())).convert("RGB"), dtype=float))
    stated, unstated = pictures  # by parts of a pixel elsewhere, since the page says that it guesses
    mirrored = np.abs(stated - unstated[:, ::-1]).mean()
    assert np.abs(stated - unstated).mean() < mirrored / 4


def test_all_four_sides_of_a_slice_are_named(page, scan: Path) -> None:
    """Letters are the brightest pixels at the middle of each edge; the crosshair is moved away from there."""
    page.show(scan)
    picture = page.tab.locator("#canvas")
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] * 0.45, "y": box["height"] * 0.4})
    shown = np.asarray(Image.open(io.BytesIO(page.picture())).convert("L"), dtype=int)
    height, width = shown.shape
    middle, half, edge = (height // 2, width // 2), 25, 24
    across, down = slice(middle[1] - half, middle[1] + half), slice(middle[0] - half, middle[0] + half)
    for side in (shown[:edge, across], shown[-edge:, across], shown[down, :edge], shown[down, -edge:]):
        assert side.max() > 150


def test_the_page_has_no_serious_fault_of_accessibility(page, scan: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.show(scan)
    for scheme in ("light", "dark"):
        page.tab.emulate_media(color_scheme=scheme)
        page.picture()  # in these colours
        violations = axe.run(page.tab).response["violations"]
        faults = [fault for fault in violations if fault["impact"] in ("serious", "critical")]
        assert not faults, [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in faults]


def test_a_damaged_model_is_named_in_one_line(site: Path, serve_folder, browser, tmp_path: Path) -> None:
    shutil.copytree(site, tmp_path / "web")
    model = bytearray((tmp_path / "web/model.onnx").read_bytes())
    model[500] ^= 1
    (tmp_path / "web/model.onnx").write_bytes(model)
    with serve_folder(tmp_path / "web") as (address, _):
        tab = browser.new_page()
        tab.goto(address)
        tab.wait_for_selector("#error:not([hidden])", timeout=120_000)
        assert tab.inner_text("#error").startswith("model.onnx: was damaged or changed after the export")
        tab.close()
