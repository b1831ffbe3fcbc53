from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.classes import CHAOS_MR
from attunet.errors import InputError
from attunet.io.readers import read_mask, read_volume
from attunet.phantom import PhantomCase, generate_case, write_phantom
from attunet.system.outputs import UNFINISHED

REDUCE = 4
LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN = 1, 2, 3, 4


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return [generate_case(7, index, reduce=REDUCE) for index in range(8)]


def centre_mm(case: PhantomCase, label: int) -> np.ndarray:
    """Centre of a class in patient coordinates: right, anterior, superior."""
    return nib.affines.apply_affine(case.affine, np.argwhere(case.labels == label)).mean(axis=0)


def test_every_organ_lies_on_its_own_side_of_the_patient(cases: list[PhantomCase]) -> None:
    for case in cases:
        assert set(np.unique(case.labels)) == set(CHAOS_MR.values)
        body = nib.affines.apply_affine(case.affine, np.argwhere(case.image > np.percentile(case.image, 60))).mean(
            axis=0
        )
        right = {label: centre_mm(case, label)[0] - body[0] for label in CHAOS_MR.values[1:]}
        assert right[LIVER] > 10
        assert right[RIGHT_KIDNEY] > 20
        assert right[LEFT_KIDNEY] < -20
        assert right[SPLEEN] < -50
        for kidney in (RIGHT_KIDNEY, LEFT_KIDNEY):
            assert centre_mm(case, kidney)[1] < body[1], "kidneys lie at the back"


def test_organs_have_the_size_of_organs(cases: list[PhantomCase]) -> None:
    for case in cases:
        voxel_ml = abs(np.linalg.det(case.affine[:3, :3])) / 1000
        volumes = [int((case.labels == label).sum()) * voxel_ml for label in CHAOS_MR.values[1:]]
        for volume, (low, high) in zip(volumes, ((600, 3200), (70, 350), (70, 350), (60, 600)), strict=True):
            assert low < volume < high, volumes


def test_grids_are_those_of_abdominal_scans() -> None:
    grids = []
    for index in range(24):
        case = generate_case(1, index, reduce=8)
        spacing = np.linalg.norm(case.affine[:3, :3], axis=0)
        assert nib.aff2axcodes(case.affine) == ("L", "A", "S")
        assert case.image.shape == case.labels.shape
        assert case.image.shape[0] * 8 in (256, 288, 320)
        assert 20 <= case.image.shape[2] <= 40
        assert np.all((spacing[:2] / 8 >= 1.3 - 1e-9) & (spacing[:2] / 8 <= 1.9 + 1e-9))
        assert 7 <= spacing[2] <= 9
        axes = case.affine[:3, :3] / spacing
        np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
        grids.append((case.image.shape, np.abs(axes).min(axis=0).max() > 1e-6))
    assert len({shape for shape, _ in grids}) > 4
    oblique = [slanted for _, slanted in grids]
    assert any(oblique)
    assert not all(oblique)


def test_brightness_alone_does_not_tell_the_organs_apart(cases: list[PhantomCase]) -> None:
    """A liver of one case is as bright as a kidney of another, and unlabelled tissue is as bright as every organ."""
    share = [
        [np.median(c.image[c.labels == label]) / np.percentile(c.image, 99) for label in CHAOS_MR.values[1:]]
        for c in cases
    ]
    liver, right_kidney, left_kidney, spleen = np.array(share).T
    assert liver.max() > min(right_kidney.min(), left_kidney.min())
    assert spleen.max() > min(right_kidney.min(), left_kidney.min())
    for case in cases:
        others = case.image[case.labels == 0]
        for label in CHAOS_MR.values[1:]:
            low, high = np.percentile(case.image[case.labels == label], (25, 75))
            assert ((others > low) & (others < high)).sum() > 0.1 * (case.labels == label).sum()


def test_a_case_depends_on_seed_and_index_alone(cases: list[PhantomCase]) -> None:
    again, other_seed = generate_case(7, 3, reduce=REDUCE), generate_case(8, 3, reduce=REDUCE)
    np.testing.assert_array_equal(again.image, cases[3].image)
    np.testing.assert_array_equal(again.labels, cases[3].labels)
    np.testing.assert_array_equal(again.affine, cases[3].affine)
    assert other_seed.image.shape != again.image.shape or not np.array_equal(other_seed.image, again.image)


def test_files_are_the_same_bytes_and_go_through_the_readers(tmp_path: Path) -> None:
    write_phantom(tmp_path / "a", cases=2, seed=5, reduce=REDUCE)
    write_phantom(tmp_path / "b", cases=3, seed=5, reduce=REDUCE)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [f"{n:02d}-T2SPIR-{kind}.nii.gz" for n in (1, 2) for kind in ("mask", "src")]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    case = generate_case(5, 1, reduce=REDUCE)
    volume = read_volume(tmp_path / "a" / "02-T2SPIR-src.nii.gz")
    mask = read_mask(tmp_path / "a" / "02-T2SPIR-mask.nii.gz")
    labels, affine = mask.data[0], mask.affine
    np.testing.assert_array_equal(volume.data[0], case.image)
    np.testing.assert_array_equal(labels, case.labels)
    np.testing.assert_allclose(volume.affine, case.affine, atol=1e-4)
    np.testing.assert_allclose(affine, volume.affine)
    header = nib.load(tmp_path / "a" / "02-T2SPIR-src.nii.gz").header
    assert (header["qform_code"], header["sform_code"]) == (1, 1)
    np.testing.assert_allclose(header.get_qform(), case.affine, atol=1e-3)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="new or an empty folder"):
        write_phantom(tmp_path, cases=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["notes.txt", "01-T2SPIR-src.nii.gz"])
def test_a_users_folder_in_the_place_of_unfinished_cases_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / name).write_text("mine")
    with pytest.raises(InputError, match=f"holds {name}"):
        write_phantom(tmp_path / "out", cases=1, reduce=REDUCE)
    assert list(tmp_path.rglob("*.*")) == [tmp_path / "out.partial", tmp_path / "out.partial" / name]


def test_cases_of_a_killed_call_do_not_stay(tmp_path: Path) -> None:
    write_phantom(tmp_path / "out", cases=2, reduce=REDUCE)
    (tmp_path / "out").rename(tmp_path / "out.partial")
    (tmp_path / "out.partial" / UNFINISHED).write_text("phantom")
    write_phantom(tmp_path / "out", cases=1, reduce=REDUCE)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["01-T2SPIR-mask.nii.gz", "01-T2SPIR-src.nii.gz", "out"]
