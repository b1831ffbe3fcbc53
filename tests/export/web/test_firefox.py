"""The page in Firefox, whose WebGPU computes in float16 even on Mesa's software driver, unlike Chromium's."""

from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import onnx
import pytest
from firefox import Firefox

from attunet.export.build.precision import to_half
from attunet.export.runtime.segmenter import Segmenter
from attunet.export.runtime.self_test import make_self_test
from attunet.export.web.write_page import write_page
from attunet.phantom import generate_case

READY = "!document.querySelector('#choose-file').disabled"
ANSWER = "!document.querySelector('#result').hidden || !document.querySelector('#error').hidden"
ADAPTER = "return (async () => [...((await navigator.gpu?.requestAdapter())?.features ?? [])])()"


@pytest.fixture(scope="module")
def firefox(start_firefox: Callable[..., Firefox]) -> Firefox:
    """With WebGPU, on software drivers too."""
    return start_firefox({"dom.webgpu.enabled": True, "gfx.webgpu.ignore-blocklist": True})


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slice from the middle of a generated case: the software driver takes seconds for each."""
    case = generate_case(3, 0, reduce=4)
    middle = case.image.shape[2] // 2
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    nib.save(nib.Nifti1Image(case.image[:, :, middle : middle + 1], case.affine), path)
    return path


@pytest.fixture(scope="module")
def fp16_artefact(save_artefact, graph: bytes) -> Path:
    """With its self-test, so that the page refuses a WebGPU with other results."""
    half = to_half(onnx.load_model_from_string(graph)).SerializeToString()
    draft = save_artefact("draft.onnx", half, precision="fp16")
    return save_artefact("fp16.onnx", half, precision="fp16", self_test=make_self_test(Segmenter(draft)))


@pytest.fixture
def address(firefox: Firefox, serve_folder, site: Path) -> Iterator[str]:
    """Address of the fp32 page, open in Firefox."""
    with serve_folder(site) as (address, _):
        firefox.open(address)
        yield address


def segment(firefox: Firefox, address: str, scan: Path) -> np.ndarray:
    """The label map that the page saves."""
    firefox.open(address)
    firefox.wait_for(READY)
    assert firefox.run("return document.querySelector('#engine').innerText") == "Runs on this computer: WebGPU"
    firefox.choose("#file", scan)
    firefox.wait_for(ANSWER, 300)
    assert firefox.run("return document.querySelector('#error').innerText") == ""
    for old in firefox.downloads.iterdir():
        old.unlink()
    firefox.run("document.querySelector('#save').click()")
    return np.asarray(nib.load(firefox.downloaded("*.nii.gz")).dataobj)


@pytest.mark.slow
def test_webgpu_gives_the_label_map_of_the_command_line(
    firefox: Firefox, address: str, predicted, artefact: Path, scan: Path
) -> None:
    if not firefox.run(ADAPTER):
        pytest.skip("Firefox has no WebGPU adapter here (Debian: mesa-vulkan-drivers)")
    ours = segment(firefox, f"{address}?provider=webgpu", scan)
    theirs = np.asarray(predicted(artefact, scan).dataobj)
    assert len(np.unique(theirs)) == 5
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_fp16_on_webgpu_agrees_with_fp16_and_fp32_on_the_command_line(
    firefox: Firefox,
    address: str,
    serve_folder,
    predicted,
    artefact: Path,
    fp16_artefact: Path,
    scan: Path,
    tmp_path: Path,
) -> None:
    """The network is untrained, so more pixels are undecided between two classes than a trained network leaves."""
    if "shader-f16" not in firefox.run(ADAPTER):
        pytest.skip("no WebGPU adapter with shader-f16 here (Debian: mesa-vulkan-drivers)")
    write_page(fp16_artefact, tmp_path / "web")
    with serve_folder(tmp_path / "web") as (fp16_address, _):
        ours = segment(firefox, f"{fp16_address}?provider=webgpu", scan)
    for model in (fp16_artefact, artefact):
        theirs = np.asarray(predicted(model, scan).dataobj)
        assert np.mean(ours != theirs) < 0.01, model.name
        for value in np.unique(theirs):
            both, sizes = ((ours == value) & (theirs == value)).sum(), (ours == value).sum() + (theirs == value).sum()
            assert 2 * both / sizes > 0.98, (model.name, value)
