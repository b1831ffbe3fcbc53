import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from attunet.errors import InputError
from attunet.preparation.scan_case import _centres, _voxel_hash, scan_case
from attunet.sources.case_files import CaseFiles


def test_centres_of_a_large_plane_take_little_memory() -> None:
    """A picture is one plane, which is computed row by row."""
    labels = np.zeros((3000, 1, 2000), np.uint8)
    labels[100:2500, 0, 300:400], labels[2900:, 0, 1200:] = 3, 7
    values = {int(value): int((labels == value).sum()) for value in (0, 3, 7)}
    tracemalloc.start()
    centres = _centres(labels, values, (2.0, 5.0, 0.5))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * labels.nbytes
    expected = np.array(ndimage.center_of_mass(np.ones_like(labels), labels, [3, 7])) - (1499.5, 0, 999.5)
    np.testing.assert_allclose([centres[3], centres[7]], expected * (2.0, 5.0, 0.5))


def test_the_hash_of_voxels_is_of_any_order_of_the_channels_and_of_these_voxels_alone() -> None:
    voxels = np.random.default_rng(0).integers(0, 9, (2, 3, 4, 5), dtype=np.int16)
    changed = voxels.copy()
    changed[1, 2, 3, 4] += 1
    assert _voxel_hash(voxels) == _voxel_hash(voxels[::-1].astype(np.float32))
    assert len(set(map(_voxel_hash, (voxels, changed, voxels[:1], voxels.swapaxes(1, 2))))) == 4


def test_voxels_whose_differences_are_infinite_are_refused(tmp_path: Path) -> None:
    voxels = np.full((4, 4, 8), 3e38, np.float32)
    voxels[..., ::2] *= -1
    nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2, 5, 1])), tmp_path / "a.nii")
    case = CaseFiles("a", "a", (tmp_path / "a.nii",))
    with pytest.raises(InputError, match=r"a\.nii: voxels must lie within ±1e\+30, got 3e\+38: give voxels"):
        scan_case(case)
    nib.save(nib.Nifti1Image(voxels / 4e8, np.diag([2.0, 2, 5, 1])), tmp_path / "a.nii")
    assert np.isfinite([scan_case(case).steepest_jump, *scan_case(case).intensity[0]["percentiles"]]).all()
