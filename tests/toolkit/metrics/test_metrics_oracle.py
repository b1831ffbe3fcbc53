"""MONAI as an oracle for the metrics, on random masks and on real ones."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from attunet.metrics.overlap import case_metrics, confusion, dice_from_confusion

monai_metrics = pytest.importorskip("monai.metrics", reason="MONAI, the oracle, is not installed")
torch = pytest.importorskip("torch", reason="MONAI needs torch")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:monai")

TOLERANCE_MM = 2.0


def blobs(seed: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Smooth random regions of three classes."""
    noise = np.random.default_rng(seed).standard_normal((3, *shape))
    return np.argmax([ndimage.gaussian_filter(n, 3) for n in noise], axis=0).astype(np.uint8)


def compare_with_monai(prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...], num_classes: int) -> None:
    def one_hot(labels: np.ndarray) -> "torch.Tensor":
        return torch.from_numpy(np.stack([labels == k for k in range(num_classes)])[None].astype(np.float32))

    p, t = one_hot(prediction), one_hot(truth)
    ours = case_metrics(prediction, truth, spacing, num_classes, tolerance_mm=TOLERANCE_MM)
    options = {"include_background": False, "spacing": list(spacing)}
    theirs = {
        "hd95_mm": monai_metrics.compute_hausdorff_distance(p, t, percentile=95, **options),
        "mssd_mm": monai_metrics.compute_hausdorff_distance(p, t, **options),
        "assd_mm": monai_metrics.compute_average_surface_distance(p, t, symmetric=True, **options),
        "surface_dice": monai_metrics.compute_surface_dice(p, t, [TOLERANCE_MM] * (num_classes - 1), **options),
        "dice": monai_metrics.compute_dice(p, t, include_background=False),
    }
    for name, value in theirs.items():
        np.testing.assert_allclose(getattr(ours, name), value[0].numpy(), rtol=1e-4, atol=1e-4, err_msg=name)
    c = monai_metrics.get_confusion_matrix(p, t, include_background=False)
    for ours_name, theirs_name in (("precision", "precision"), ("recall", "sensitivity")):
        value = monai_metrics.compute_confusion_matrix_metric(theirs_name, c)[0].numpy()
        np.testing.assert_allclose(getattr(ours, ours_name), value, rtol=1e-5, err_msg=ours_name)
    whole = monai_metrics.compute_dice(p, t, include_background=True)[0].numpy()
    np.testing.assert_allclose(dice_from_confusion(confusion(prediction, truth, num_classes)), whole, rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_random_masks_agree_with_monai(seed: int) -> None:
    shape = (31, 24, 12)
    compare_with_monai(blobs(seed, shape), blobs(seed + 100, shape), (1.4, 1.7, 8.0), 3)


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
