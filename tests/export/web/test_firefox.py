"""The page in Firefox, whose WebGPU computes in float16 even on Mesa's software driver;
Chromium's software adapter does not.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import onnx
import pytest
from firefox import Firefox

from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.artefact_file import write_artefact
from attunet.export.build.precision import to_half
from attunet.export.runtime.segmenter import Segmenter
from attunet.export.runtime.self_test import make_self_test
from attunet.export.web.write_page import write_page
from attunet.launch.cli import cli
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
    """Three slices from the middle of a generated case: the software driver takes seconds for each."""
    case = generate_case(3, 0, reduce=4)
    middle = case.image.shape[2] // 2
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    nib.save(nib.Nifti1Image(case.image[:, :, middle - 1 : middle + 2], case.affine), path)
    return path


@pytest.fixture(scope="module")
def fp16_artefact(tmp_path_factory: pytest.TempPathFactory, graph: bytes, metadata: Artefact) -> Path:
    """With its self-test, so that the page refuses a WebGPU whose answer is another."""
    half = to_half(onnx.load_model_from_string(graph)).SerializeToString()
    about = replace(metadata, precision="fp16")
    path = tmp_path_factory.mktemp("fp16") / "fp16.onnx"
    path.write_bytes(write_artefact(half, about))
    path.write_bytes(write_artefact(half, replace(about, self_test=make_self_test(Segmenter(path)))))
    return path


@pytest.fixture
def address(firefox: Firefox, serve_folder, site: Path) -> Iterator[str]:
    """The fp32 page's address, where WebGPU can be asked for."""
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


def predicted(model: Path, scan: Path, folder: Path) -> np.ndarray:
    out = folder / "predicted.nii.gz"
    cli.main(["predict", str(model), str(scan), str(out)], standalone_mode=False)
    return np.asarray(nib.load(out).dataobj)


@pytest.mark.slow
def test_webgpu_gives_the_label_map_of_the_command_line(
    firefox: Firefox, address: str, artefact: Path, scan: Path, tmp_path: Path
) -> None:
    if not firefox.run(ADAPTER):
        pytest.skip("Firefox has no WebGPU adapter here (Debian: mesa-vulkan-drivers)")
    ours, theirs = segment(firefox, f"{address}?provider=webgpu", scan), predicted(artefact, scan, tmp_path)
    assert len(np.unique(theirs)) == 5
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_fp16_on_webgpu_agrees_with_fp16_and_fp32_on_the_command_line(
    firefox: Firefox, address: str, serve_folder, artefact: Path, fp16_artefact: Path, scan: Path, tmp_path: Path
) -> None:
    """The network is untrained, so more pixels are undecided between two classes than a trained network leaves."""
    if "shader-f16" not in firefox.run(ADAPTER):
        pytest.skip("no WebGPU adapter with shader-f16 here (Debian: mesa-vulkan-drivers)")
    write_page(fp16_artefact, tmp_path / "web")
    with serve_folder(tmp_path / "web") as (fp16_address, _):
        ours = segment(firefox, f"{fp16_address}?provider=webgpu", scan)
    for model in (fp16_artefact, artefact):
        theirs = predicted(model, scan, tmp_path)
        assert np.mean(ours != theirs) < 0.01, model.name
        for value in np.unique(theirs):
            both, sizes = ((ours == value) & (theirs == value)).sum(), (ours == value).sum() + (theirs == value).sum()
            assert 2 * both / sizes > 0.98, (model.name, value)
