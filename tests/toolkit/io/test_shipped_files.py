"""Every file that pydicom and nibabel ship: the values and grid that these read, or one line that says why not."""

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.classes import Classes
from attunet.errors import InputError
from attunet.io.readers import read_mask, read_volume
from attunet.io.writers import suffixes_for, write_labels
from attunet.launch.commands.inspect import describe
from attunet.sources.case_files import SourceOptions
from attunet.volumes.predict import predict_prepared
from attunet.volumes.slices import VolumeSlices
from attunet.volumes.spec import PreprocessSpec

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")

CODE = (
    *(".py", ".pyc", ".pyi", ".json", ".md", ".txt", ".rst", ".toml", ".m", ".csv", ".xml", ".gii"),
    *(".npz", ".npy", ".mat"),
)
CLASSES = Classes(("background", "x"), (0, 7))


def shipped() -> Iterator[Path]:
    for root in (Path(pydicom.__file__).parent / "data", Path(nib.__file__).parent):
        yield from (path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix.lower() not in CODE)


def expected(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Values (X, Y, Z[, C]) and affine as the library itself reads them; of DICOM the values alone."""
    if path.suffix in (".nii", ".gz", ".mgz"):
        image = nib.load(path)
        return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine)
    dataset = pydicom.dcmread(path, force=True)
    stored = dataset.pixel_array.astype(float)
    scaled = stored * float(dataset.get("RescaleSlope", 1) or 1) + float(dataset.get("RescaleIntercept", 0) or 0)
    return scaled.T[:, :, None], None


@pytest.mark.filterwarnings("ignore")
def test_shipped_files_are_read_as_their_libraries_read_them_or_refused_in_one_line(tmp_path: Path) -> None:
    read, refused = 0, dict[Path, str]()
    for path in shipped():
        try:
            lines = list(describe(path, SourceOptions()))
            volume = read_volume(path, channels=None)
        except InputError as error:
            refused[path] = str(error)
            continue
        read += 1
        assert "a volume, " in lines[0]
        values, affine = expected(path)
        np.testing.assert_allclose(
            np.moveaxis(volume.data, 0, -1).reshape(values.shape), values, rtol=1e-5, err_msg=path.name
        )
        if affine is not None:
            np.testing.assert_allclose(volume.affine, affine, atol=1e-4, err_msg=path.name)
        spec = PreprocessSpec("LPS", 2, None, (32, 32), num_channels=len(volume.data))
        slices = VolumeSlices(volume, spec)
        labels = predict_prepared(lambda batch: np.stack([0 * batch[:, 0], batch[:, 0]], axis=1), slices)
        out = tmp_path / f"{read}{suffixes_for([path])[0]}"
        write_labels(out, labels, CLASSES, volume)
        mask = read_mask(out)
        np.testing.assert_array_equal(mask.data[0], 7 * labels, err_msg=path.name)
        np.testing.assert_allclose(mask.affine, volume.affine, atol=1e-4, err_msg=path.name)
    assert read >= 48
    assert {path.name for path, text in refused.items() if "is a mosaic" in text} >= {"0.dcm", "1.dcm"}
    assert len(refused) >= 150
    assert not [text for text in refused.values() if "\n" in text]
    assert not [path for path, text in refused.items() if path.name not in text and str(path.parent) not in text]
