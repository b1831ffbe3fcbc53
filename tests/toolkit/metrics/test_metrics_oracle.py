"""Other implementations as oracles for the metrics: MONAI, surface-distance, and the evaluation of the CHAOS challenge.

MONAI counts the edge of the image as surface, so its masks are compared inside a margin.
"""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage, spatial

from attunet.metrics.overlap import (
    SURFACE_DICE_TOLERANCE_MM,
    case_metrics,
    confusion,
    dice_from_confusion,
    precision_from_confusion,
    recall_from_confusion,
)
from attunet.metrics.surface import surface_distances
from attunet.metrics.surface_dice import surface_dice

monai_metrics = pytest.importorskip("monai.metrics", reason="MONAI, the oracle, is not installed")
torch = pytest.importorskip("torch", reason="MONAI needs torch")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:monai")


def blobs(seed: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Smooth random regions of three classes."""
    noise = np.random.default_rng(seed).standard_normal((3, *shape))
    return np.argmax([ndimage.gaussian_filter(n, 3) for n in noise], axis=0).astype(np.uint8)


def compare_with_monai(prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...], num_classes: int) -> None:
    def one_hot(labels: np.ndarray) -> "torch.Tensor":
        return torch.from_numpy(np.stack([labels == k for k in range(num_classes)])[None].astype(np.float32))

    prediction, truth = np.pad(prediction, 1), np.pad(truth, 1)
    p, t = one_hot(prediction), one_hot(truth)
    ours = case_metrics(prediction, truth, spacing, num_classes)
    options = {"include_background": False, "spacing": list(spacing)}
    theirs = {
        "hd95_mm": monai_metrics.compute_hausdorff_distance(p, t, percentile=95, **options),
        "mssd_mm": monai_metrics.compute_hausdorff_distance(p, t, **options),
        "assd_mm": monai_metrics.compute_average_surface_distance(p, t, symmetric=True, **options),
        "surface_dice": monai_metrics.compute_surface_dice(
            p, t, [SURFACE_DICE_TOLERANCE_MM] * (num_classes - 1), use_subvoxels=True, **options
        ),
        "dice": monai_metrics.compute_dice(p, t, include_background=False),
    }
    for name, value in theirs.items():
        np.testing.assert_allclose(getattr(ours, name), value[0].numpy(), rtol=1e-4, atol=1e-4, err_msg=name)
    c = monai_metrics.get_confusion_matrix(p, t, include_background=False)
    for theirs_name, ours_of in (("precision", precision_from_confusion), ("sensitivity", recall_from_confusion)):
        value = monai_metrics.compute_confusion_matrix_metric(theirs_name, c)[0].numpy()
        np.testing.assert_allclose(ours_of(ours.counts)[1:], value, rtol=1e-5, err_msg=theirs_name)
    whole = monai_metrics.compute_dice(p, t, include_background=True)[0].numpy()
    np.testing.assert_allclose(dice_from_confusion(confusion(prediction, truth, num_classes)), whole, rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_random_masks_agree_with_monai(seed: int) -> None:
    shape = (31, 24, 12)
    compare_with_monai(blobs(seed, shape), blobs(seed + 100, shape), (1.4, 1.7, 8.0), 3)


@pytest.mark.slow
def test_real_masks_agree_with_monai(real_cases: Path) -> None:
    """Real masks against a crude prediction: shifted, with a piece missing and a far island."""
    for path in sorted((real_cases / "labelled").glob("*-mask.nii.gz"))[:3]:
        image: Any = nib.load(path)
        truth = np.asarray(image.dataobj).astype(np.uint8)
        spacing = tuple(float(v) for v in image.header.get_zooms()[:3])
        prediction = np.roll(truth, (3, -2, 1), axis=(0, 1, 2))
        prediction[:, :, : truth.shape[2] // 3] = 0
        prediction[5:8, 5:8, 3] = 1
        assert len(np.unique(truth)) == 5, path.name
        compare_with_monai(prediction, truth, spacing, 5)


@pytest.fixture
def surface_distance(monkeypatch: pytest.MonkeyPatch) -> Any:
    """PyPI's surface-distance, with the names of NumPy 1 and old SciPy that it calls."""
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)
    for namespace in ("filters", "morphology"):
        monkeypatch.setattr(ndimage, namespace, ndimage, raising=False)
    return pytest.importorskip("surface_distance.metrics", reason="surface-distance, the oracle, is not installed")


@pytest.mark.parametrize("tolerance_mm", [0.0, 1.4, 2.0, 3.0, 8.1])
@pytest.mark.parametrize("shape", [(31, 24, 12), (31, 24)])
def test_surface_dice_is_that_of_the_decathlon(
    surface_distance: Any, shape: tuple[int, ...], tolerance_mm: float
) -> None:
    """Masks that the image cuts, and an organ that touches an edge with half of its surface."""
    spacing = (1.4, 1.7, 8.0)[: len(shape)]
    for seed in range(4):
        random = (np.random.default_rng(seed + k).standard_normal(shape) for k in (0, 50))
        prediction, truth = (ndimage.gaussian_filter(noise, 3) > 0.02 for noise in random)
        distances = surface_distance.compute_surface_distances(truth, prediction, spacing)
        expected = surface_distance.compute_surface_dice_at_tolerance(distances, tolerance_mm)
        assert surface_dice(prediction, truth, spacing, tolerance_mm) == pytest.approx(expected, abs=1e-12)


def chaos_assd_and_mssd(prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, float]:
    """Surfaces and distances as the challenge's evaluation takes them: outside is set, nearest points by a tree."""
    cross = ndimage.generate_binary_structure(3, 1)
    surfaces = (m & ~ndimage.binary_erosion(m, cross, border_value=1) for m in (prediction, truth))
    points = [np.argwhere(surface) * np.array(spacing) for surface in surfaces]
    both = np.concatenate([spatial.KDTree(points[1 - i]).query(points[i])[0] for i in (0, 1)])
    return float(both.mean()), float(both.max())


def test_distances_are_those_of_the_chaos_challenge_where_the_image_cuts_an_organ() -> None:
    for seed in range(6):
        random = (np.random.default_rng(seed + k).standard_normal((31, 24, 12)) for k in (0, 50))
        first, second = (ndimage.gaussian_filter(noise, 4) for noise in random)
        prediction, truth = first > 0, first + 0.3 * second > 0
        assert truth[0].any() or truth[:, :, -1].any(), "the image must cut the organ"
        measured = surface_distances(prediction, truth, (1.4, 1.7, 8.0))
        np.testing.assert_allclose(
            (measured.assd, measured.mssd), chaos_assd_and_mssd(prediction, truth, (1.4, 1.7, 8.0)), rtol=1e-12
        )
