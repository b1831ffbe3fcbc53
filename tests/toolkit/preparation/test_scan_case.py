import tracemalloc

import numpy as np
from scipy import ndimage

from attunet.preparation.scan_case import _centres


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
