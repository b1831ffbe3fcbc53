"""Augmentation: a function of (seed, epoch, sample), labels never mixed, image and label moved together, sides kept."""

import dataclasses
import pkgutil

import numpy as np
import pytest
import torch

from attunet.config import AugmentConfig
from attunet.errors import InputError
from attunet.loading import transforms
from attunet.loading.augment import Augmenter, draw_parameters
from attunet.loading.transforms.noise import gaussian_noise

SIZE = (96, 128)
CPU = torch.device("cpu")
STRONG = AugmentConfig(
    elastic_probability=0.7, noise_probability=0.7, low_resolution_probability=0.7, bias_field_probability=0.7
)
NOTHING = dataclasses.replace(
    STRONG, **{f.name: 0.0 for f in dataclasses.fields(STRONG) if f.name.endswith("_probability")}
)
SPATIAL = dataclasses.replace(NOTHING, spatial_probability=1.0, elastic_probability=1.0)


def batch(count: int = 8, channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, channels, *SIZE, generator=generator)
    return images, torch.randint(0, 5, (count, *SIZE), generator=generator, dtype=torch.uint8)


def blobs(count: int) -> torch.Tensor:
    """Smooth label maps: class 1 left of the middle, class 2 right of it, far from the border."""
    labels = torch.zeros(count, *SIZE, dtype=torch.uint8)
    labels[:, 38:58, 36:54], labels[:, 38:58, 74:92] = 1, 2
    return labels


def test_a_sample_does_not_depend_on_its_batch() -> None:
    images, labels = batch()
    augmenter = Augmenter(STRONG, SIZE, CPU)
    epochs, samples = np.array([0, 0, 1, 1, 2, 2, 3, 3]), np.arange(8) * 5
    whole = augmenter(images, labels, seed=1, epochs=epochs, samples=samples)
    for chosen in ([0], [3, 4], [7, 1, 5]):
        part = augmenter(images[chosen], labels[chosen], seed=1, epochs=epochs[chosen], samples=samples[chosen])
        assert torch.equal(part[0], whole[0][chosen])
        assert torch.equal(part[1], whole[1][chosen])


@pytest.mark.parametrize("change", [{"seed": 2}, {"epochs": np.full(8, 9)}, {"samples": np.arange(8) + 100}])
def test_seed_epoch_and_sample_each_change_the_result(change: dict) -> None:
    images, labels = batch()
    augmenter = Augmenter(STRONG, SIZE, CPU)
    first = {"seed": 1, "epochs": np.zeros(8, int), "samples": np.arange(8)}
    assert not torch.equal(augmenter(images, labels, **first)[0], augmenter(images, labels, **(first | change))[0])


def test_with_no_transform_drawn_nothing_changes() -> None:
    images, labels = batch()
    same, same_labels = Augmenter(NOTHING, SIZE, CPU)(
        images, labels, seed=0, epochs=np.zeros(8, int), samples=np.arange(8)
    )
    torch.testing.assert_close(same, images, atol=1e-4, rtol=0)
    assert torch.equal(same_labels, labels)


def test_image_and_label_move_together_and_sides_stay() -> None:
    labels = blobs(16)
    moved, moved_labels = Augmenter(SPATIAL, SIZE, CPU)(
        labels[:, None].float(), labels, seed=4, epochs=np.zeros(16, int), samples=np.arange(16)
    )
    assert set(moved_labels.unique().tolist()) == {0, 1, 2}  # never a value in between
    agreement = (moved[:, 0].round() == moved_labels).float().mean()
    assert agreement > 0.97
    columns = torch.arange(SIZE[1]).float()
    for label in moved_labels:
        left = ((label == 1).sum(0) * columns).sum() / (label == 1).sum()
        right = ((label == 2).sum(0) * columns).sum() / (label == 2).sum()
        assert left < right
    assert not torch.equal(moved_labels, labels)


@pytest.mark.parametrize("name", ["brightness", "contrast", "gamma", "bias_field", "noise", "low_resolution"])
def test_each_intensity_transform_changes_images_and_no_label(name: str) -> None:
    images, labels = batch()
    config = dataclasses.replace(NOTHING, **{f"{name}_probability": 1.0})
    changed, same = Augmenter(config, SIZE, CPU)(images, labels, seed=0, epochs=np.zeros(8, int), samples=np.arange(8))
    assert (changed - images).abs().mean() > 1e-2
    assert torch.isfinite(changed).all()
    assert torch.equal(same, labels)


def test_noise_is_standard_normal_and_independent_between_samples() -> None:
    noise = gaussian_noise(torch.arange(64) * 1_234_567, torch.Size((64, 1, 100, 100))).flatten(1)
    assert abs(noise.mean().item()) < 0.01
    assert abs(noise.std().item() - 1) < 0.01
    assert abs((noise.abs() > 2).float().mean().item() - 0.0455) < 0.003
    assert torch.corrcoef(noise).fill_diagonal_(0).abs().max() < 0.06


@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.soak)])
def test_compiles_without_a_graph_break(compiler: str) -> None:
    """Labels may differ where two compilers round a sampling point to either side of a pixel's edge."""
    images, labels = batch(2, 1)
    augmenter = Augmenter(STRONG, SIZE, CPU)
    parameters = draw_parameters(STRONG, seed=1, epochs=np.zeros(2, int), samples=np.arange(2), size=SIZE)
    expected, expected_labels = augmenter.apply(images, labels, parameters)
    found, found_labels = torch.compile(augmenter.apply, fullgraph=True, backend=compiler)(images, labels, parameters)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)
    assert (found_labels != expected_labels).float().mean() < 1e-3


def test_a_range_that_falls_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"augment\.scale: must be a list of 2 ascending numbers .* got \[1\.2, 0\.8\]"
    ):
        AugmentConfig(scale=(1.2, 0.8))
    assert AugmentConfig(scale=(1.0, 1.0)).scale == (1.0, 1.0)


def test_no_transform_is_left_out() -> None:
    """A module without a probability in the configuration would never be applied."""
    modules = {module.name for module in pkgutil.iter_modules(transforms.__path__)}
    assert modules == set(transforms.TRANSFORMS)
    assert len(transforms.SPATIAL) + len(transforms.INTENSITY) == len(modules)
