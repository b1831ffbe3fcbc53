import tracemalloc

import numpy as np
from scipy import ndimage

from attunet.preparation.scan_case import _centres, _voxel_hash


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
