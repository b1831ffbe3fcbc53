"""What a scan is said to need is at least what it takes, and is known before its voxels are read."""

import json
import subprocess
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from attunet.errors import TooLarge
from attunet.export.artefact.artefact_file import read_artefact
from attunet.export.serve.refusal import refusal_of
from attunet.export.serve.scans.needs import check_header, check_oriented, check_volume, memory_of
from attunet.export.serve.settings import Settings
from attunet.volumes.predict import MAX_MEGAPIXELS, check_megapixels
from attunet.volumes.volume import Volume

SMALL = Settings(max_memory_mb=1)

PEAK = """
import json, re, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from attunet.export.runtime import Segmenter
from attunet.export.serve.scans.needs import memory_of
from attunet.io.nifti import nifti_volume
from attunet.io.readers import read_volume
from attunet.io.writers import write_labels

def memory(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1000

segmenter = Segmenter(sys.argv[1], num_threads=1)
segmenter.logits(np.zeros((1, 1, 64, 64), np.float32))
about = replace(segmenter.metadata, config={"model": {"base_width": 4}})
needed = memory_of(nifti_volume(Path(sys.argv[2])), about)
before = memory("VmHWM")
volume = read_volume(sys.argv[2])
write_labels(sys.argv[3], segmenter.predict_volume(volume), segmenter.classes, volume)
print(json.dumps([memory("VmHWM") - before, needed]))
"""


@pytest.mark.parametrize(
    ("shape", "dtype"), [((200, 200, 60), np.int16), ((200, 200, 60), np.float32), ((800, 800, 3), np.float32)]
)
def test_the_estimate_is_an_upper_bound_and_no_fantasy(artefact, tmp_path, shape, dtype):
    data = np.random.default_rng(0).normal(300, 60, shape).astype(dtype)
    nib.save(nib.Nifti1Image(data, np.diag([-0.8, -0.8, 5, 1])), tmp_path / "scan.nii")
    command = [sys.executable, "-c", PEAK, artefact, tmp_path / "scan.nii", tmp_path / "labels.nii.gz"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    used, needed = json.loads(done.stdout)
    assert used <= needed <= 12 * used + 200


def test_needs_grow_with_slices_and_channels_and_the_networks_width(artefact):
    about = read_artefact(artefact)
    volume = Volume(np.broadcast_to(np.int16(0), (1, 100, 100, 50)), np.diag([-1.5, -1.5, 5.0, 1.0]))
    more = Volume(np.broadcast_to(np.int16(0), (1, 100, 100, 500)), volume.affine)
    assert memory_of(more, about) > memory_of(volume, about)
    wide = replace(about, config={"model": {"base_width": 128}})
    assert memory_of(volume, wide) > 1.5 * memory_of(volume, about)


def test_headers_of_other_formats_are_counted_too(artefact, tmp_path):
    about = read_artefact(artefact)
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.zeros((2000, 2000), np.uint8)).save(tmp_path / "scan.png")
    itk = pytest.importorskip("SimpleITK")
    itk.WriteImage(itk.GetImageFromArray(np.zeros((20, 200, 200), np.int16)), str(tmp_path / "scan.nrrd"), True)
    zeros = np.zeros((200, 200, 20), np.float32)
    nib.save(nib.MGHImage(zeros, np.eye(4)), tmp_path / "scan.mgz")
    nib.save(nib.Spm2AnalyzeImage(zeros, np.eye(4)), tmp_path / "pair.hdr")
    for name in ("scan.png", "scan.nrrd", "scan.mgz", "pair.hdr"):
        with pytest.raises(TooLarge, match="MB of memory") as refused:
            check_header([tmp_path / name], about, SMALL)
        assert refusal_of(refused.value).status == 413
        check_header([tmp_path / name], about, Settings())


def test_a_header_is_judged_whatever_the_capitals_of_its_file_s_name(artefact, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((100, 100, 40), np.uint8), np.diag([1.5, 1.5, 5, 1])), tmp_path / "a.nii.gz")
    with pytest.raises(TooLarge, match="MB of memory"):
        check_header([(tmp_path / "a.nii.gz").rename(tmp_path / "A.NII.GZ")], read_artefact(artefact), SMALL)


def test_channels_in_files_are_counted_together(artefact, tmp_path):
    """They are read one after the other, and live at once."""
    about = read_artefact(artefact)
    nib.save(nib.Nifti1Image(np.zeros((100, 100, 40), np.float32), np.diag([1.5, 1.5, 5, 1])), tmp_path / "a.nii")
    itk = pytest.importorskip("SimpleITK")
    itk.WriteImage(itk.GetImageFromArray(np.zeros((40, 100, 100), np.float32)), str(tmp_path / "a.nrrd"), True)
    for file in (tmp_path / "a.nii", tmp_path / "a.nrrd"):
        settings = Settings(max_memory_mb=400)
        check_header([file], about, settings)
        with pytest.raises(TooLarge, match="MB of memory"):
            check_header([file] * 40, about, settings)


def test_the_server_bounds_pixels_as_predict_does(artefact):
    from attunet.launch.cli import cli

    about, settings = read_artefact(artefact), Settings()
    defaults = [
        next(o.default for o in cli.commands[name].params if o.name == "max_megapixels")
        for name in ("serve", "predict")
    ]
    assert [*defaults, settings.max_megapixels] == [MAX_MEGAPIXELS] * 3
    # Each padded to 64 × 64
    many = Volume(np.broadcast_to(np.int16(0), (1, 2, 2, 200_000)), np.diag([-1.5, -1.5, 5.0, 1.0]))
    for check in (
        lambda: check_megapixels(many, about.spec, settings.max_megapixels),
        lambda: check_volume(many, about, settings),
        lambda: check_oriented((200_000, 2, 2), (5.0, 1.5, 1.5), about, settings),
    ):
        with pytest.raises(TooLarge, match="are 819 megapixels, at most 512 are allowed"):
            check()
