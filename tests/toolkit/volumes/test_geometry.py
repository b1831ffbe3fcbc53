import itertools

import nibabel as nib
import numpy as np
import pytest

from attunet.classes import IGNORE_LABEL
from attunet.volumes import geometry

ORIENTATIONS = [
    "".join(a[f] for a, f in zip(axes, flips, strict=True))
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for flips in itertools.product((0, 1), repeat=3)
]


def affine_of(codes: str, spacing: tuple[float, float, float] = (1.5, 2.0, 7.0)) -> np.ndarray:
    affine = np.eye(4)
    for axis, code in enumerate(codes):
        affine[:3, axis] = spacing[axis] * np.array(
            [(code == plus) - (code == minus) for plus, minus in ("RL", "AP", "SI")]
        )
    return affine


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_any_axis_order_comes_to_left_posterior_superior_and_back(codes: str) -> None:
    array, affine = np.arange(2 * 4 * 5 * 6).reshape(2, 4, 5, 6), affine_of(codes)
    assert nib.aff2axcodes(affine) == tuple(codes)
    transform = geometry.orientation_transform(affine, "LPS")
    reference = nib.Nifti1Image(array[0].astype(np.int32), affine)
    change = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt("LPS"))
    expected = reference.as_reoriented(change)
    oriented = geometry.orient(array, transform)
    np.testing.assert_array_equal(oriented[0], expected.dataobj)
    assert geometry.oriented_spacing((1.5, 2.0, 7.0), transform) == pytest.approx(expected.header.get_zooms())
    np.testing.assert_array_equal(geometry.unorient(oriented, transform), array)
    for slice_axis in range(3):
        slices = geometry.to_slices(array, transform, slice_axis)
        np.testing.assert_array_equal(geometry.from_slices(slices, transform, slice_axis), array)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PSL", "IRA"])
def test_rows_of_a_slice_run_to_posterior_and_columns_to_the_left(codes: str) -> None:
    shape, affine = (4, 5, 6), affine_of(codes)
    world = nib.affines.apply_affine(affine, np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1))
    right, anterior, superior = (
        geometry.to_slices(w, geometry.orientation_transform(affine, "LPS"), 2) for w in np.moveaxis(world, -1, 0)
    )
    assert (np.diff(anterior, axis=1) < 0).all()  # down the rows, to posterior
    assert (np.diff(right, axis=2) < 0).all()  # along the columns, to the left
    assert (np.diff(superior, axis=0) > 0).all()


@pytest.mark.parametrize(
    ("before", "after"),
    [((11, 17), (7, 30)), ((32, 32), (16, 13)), ((5, 9), (64, 9)), ((7, 1), (3, 4)), ((40, 40), (1, 1))],
)
def test_resize_is_anti_aliased_linear_interpolation_as_torch_has_it(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    torch = pytest.importorskip("torch")
    array = np.random.default_rng(0).normal(size=(2, 3, *before)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(array), size=after, mode="bilinear", antialias=True, align_corners=False
    )
    np.testing.assert_allclose(geometry.resize_linear(array, after), expected.numpy(), atol=2e-5)


def test_resize_keeps_constants_positions_and_symmetry() -> None:
    assert geometry.resize_linear(np.full((1, 9, 13), 3), (20, 5)) == pytest.approx(3)
    ramp = np.broadcast_to((np.arange(40) + 0.5) / 40, (8, 40))  # in shares of the field of view
    expected = np.broadcast_to((np.arange(25) + 0.5) / 25, (8, 25))
    np.testing.assert_allclose(geometry.resize_linear(ramp, (8, 25))[:, 2:-2], expected[:, 2:-2], atol=2e-3)
    array = np.random.default_rng(1).normal(size=(12, 31))
    turned = geometry.resize_linear(array[::-1, ::-1], (9, 40))[::-1, ::-1]
    np.testing.assert_allclose(turned, geometry.resize_linear(array, (9, 40)), atol=1e-6)


def test_labels_between_two_classes_are_never_a_third_one() -> None:
    labels = np.zeros((3, 40, 40), dtype=np.uint8)
    labels[:, :, 20:] = 4
    for shape in ((27, 33), (64, 50), (9, 9)):
        assert set(np.unique(geometry.resize_labels(labels, shape, 5))) == {0, 4}


def test_labels_keep_their_share_of_the_area() -> None:
    y, x = np.mgrid[:200, :200]
    labels = np.where((y - 90) ** 2 + (x - 110) ** 2 < 50**2, 2, 0).astype(np.uint8)[None]
    for shape in ((131, 131), (77, 160), (333, 210)):
        assert (geometry.resize_labels(labels, shape, 3) == 2).mean() == pytest.approx((labels == 2).mean(), rel=0.01)


def test_ignored_pixels_stay_ignored_where_they_dominate_and_spread_nowhere() -> None:
    labels = np.ones((1, 32, 32), dtype=np.uint8)
    labels[:, :16] = IGNORE_LABEL
    labels[0, 25, 25] = IGNORE_LABEL
    small = geometry.resize_labels(labels, (8, 8), 2)[0]
    assert (small[:4] == IGNORE_LABEL).all()
    assert (small[4:] == 1).all()


@pytest.mark.parametrize("shape", [(10, 8), (7, 21), (16, 5), (3, 3), (11, 12)])
def test_a_window_is_centred_and_its_offset_leads_back(shape: tuple[int, int]) -> None:
    array = np.arange(1, 1 + 2 * 11 * 12).reshape(2, 11, 12)
    window = geometry.place(array, shape, geometry.window_offset(array.shape, shape), -1)
    top, left = geometry.window_offset(array.shape, shape)
    assert abs(top - (shape[0] - 11) / 2) <= 0.5
    assert abs(left - (shape[1] - 12) / 2) <= 0.5
    back = geometry.place(window, (11, 12), (-top, -left), 0)
    assert ((back == array) | (back == 0)).all()
    kept = min(11, shape[0]) * min(12, shape[1])
    assert (back == array).sum() == (window >= 0).sum() == 2 * kept
