"""Small cases with known anatomy, a source of them, a store of that, and the real cases where they are at hand."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from firefox import FIREFOX, XVFB, Firefox

from attunet.config import DataConfig
from attunet.launch.cli import cli
from attunet.launch.exit_codes import run_command
from attunet.preparation.prepare import prepare
from attunet.store import Store
from attunet.system.atomic_files import MANIFEST, sha256
from attunet.system.log_lines import forward_log

REAL_CASES = Path(__file__).parents[2] / "shared/data/chaos"
SHAPE = (48, 40, 6)
SPACING = (2.0, 2.0, 8.0)

WriteCase = Callable[..., tuple[Path, Path]]


@pytest.fixture(scope="session", autouse=True)
def _trace_once(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Networks that are built alike are traced for an export once in a session, where its tests have torch, and once
    for all processes of xdist, whose folders lie side by side.
    """
    if "torch" not in sys.modules or find_spec("onnxscript") is None:
        yield
        return
    from traced_once import traced_once

    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if hasattr(pytestconfig, "workerinput") else folder) / "traced"
    folder.mkdir(exist_ok=True)
    with traced_once(folder):
        yield


@pytest.fixture(scope="session", autouse=True)
def _coarse_pictures() -> Iterator[None]:
    """Pictures of a few pixels, whose parts are not moved until they fit: nobody looks at those of commands. The tests
    of `plots` have whole ones.
    """
    if find_spec("matplotlib") is None:
        yield
        return
    from matplotlib.figure import Figure

    coarse = {"dpi": 40, "layout": "none"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attunet.plots.figure.Figure", lambda **options: Figure(**options | coarse))
        yield


@pytest.fixture
def no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations without the peak memory, for which each model is opened in a process of its own, and with a moment
    for the times of a demo.
    """
    monkeypatch.setattr("attunet.benchmarks.evaluation.evaluate.peak_memory_mb", lambda *_, **__: 1.0)
    monkeypatch.setattr("attunet.launch.commands.demo.LATENCY_SECONDS", 0.02)


@pytest.fixture
def trainings_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of a comparison in this process, not in one of their own each."""
    from trainings_here import EndedTraining

    monkeypatch.setattr("attunet.benchmarks.crossvalidation.jobs._start", EndedTraining)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several processes none begins a file of slow tests when the others have nothing left."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Binary values are named by their argument: a time stamp in them would differ between xdist's workers."""
    return argname if isinstance(val, bytes) else None


def small_case(seed: int, shape: tuple[int, int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """An int16 image and its labels 0-4, axes LAS as in the real cases:
    the liver and the right kidney lie on the patient's right.
    """
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    grid += rng.normal(0, 0.03, (3, 1, 1, 1))
    labels = np.zeros(shape, dtype=np.uint8)
    # first axis to the patient's left, second to anterior
    organs = {1: (-0.4, 0.2, 0, 0.30), 2: (-0.35, -0.4, 0, 0.15), 3: (0.35, -0.4, 0, 0.15), 4: (0.5, 0.1, 0, 0.18)}
    image = 300.0 * (grid[0] ** 2 + grid[1] ** 2 < 0.8)
    for value, (x, y, z, radius) in organs.items():
        inside = (grid[0] - x) ** 2 + (grid[1] - y) ** 2 + 0.1 * (grid[2] - z) ** 2 < radius**2
        labels[inside] = value
        image[inside] = 400 + 150 * value
    image += rng.normal(0, 15, shape)
    return np.clip(image, 0, None).astype(np.int16), labels


def las_affine(spacing: tuple[float, float, float] = SPACING) -> np.ndarray:
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    affine[:3, 3] = (40, -35, -20)
    return affine


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


@pytest.fixture(scope="session")
def write_case() -> WriteCase:
    """`write_case(folder, name, seed=0, ...)` writes NAME-src.nii.gz and NAME-mask.nii.gz; returns both paths."""

    def write(
        folder: Path,
        name: str,
        *,
        seed: int = 0,
        values: tuple[int, ...] = (0, 1, 2, 3, 4),
        spacing: tuple[float, float, float] = SPACING,
        shape: tuple[int, int, int] = SHAPE,
    ) -> tuple[Path, Path]:
        image, labels = small_case(seed, shape)
        affine = las_affine(spacing)
        coded = np.array(values, dtype=np.int16)[labels]
        return save_nifti(folder / f"{name}-src.nii.gz", image, affine), save_nifti(
            folder / f"{name}-mask.nii.gz", coded, affine
        )

    return write


def write_dicom_series(folder: Path, data: np.ndarray, affine: np.ndarray, **elements: object) -> list[Path]:
    """`(X, Y, Z)` integers as one DICOM file per slice, named in the order of Z; `elements` are set in every header."""
    dataset_of = pytest.importorskip("pydicom").dataset
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    pixel_mm = np.linalg.norm(lps[:3, :2], axis=0)
    paths = []
    for index in range(data.shape[2]):
        dataset = dataset_of.Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", f"1.2.826.0.1.{index + 1}"
        dataset.SeriesInstanceUID, dataset.Modality = "1.2.826.0.1.99", "MR"
        dataset.Columns, dataset.Rows = data.shape[:2]
        dataset.PixelSpacing = [f"{pixel_mm[1]:.9g}", f"{pixel_mm[0]:.9g}"]
        dataset.ImageOrientationPatient = [f"{v:.9g}" for v in (lps[:3, :2] / pixel_mm).T.ravel()]
        dataset.ImagePositionPatient = [f"{v:.9g}" for v in (lps @ (0, 0, index, 1))[:3]]
        dataset.BitsAllocated = dataset.BitsStored = 8 * data.dtype.itemsize
        dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(data.dtype.kind == "i")
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.PixelData = np.ascontiguousarray(data[:, :, index].T).tobytes()
        for name, value in elements.items():
            setattr(dataset, name, value)
        dataset.file_meta = dataset_of.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        paths.append(folder / f"IMG-0004-{index + 1:05d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


@pytest.fixture(scope="session")
def write_series() -> Callable[..., list[Path]]:
    return write_dicom_series


@pytest.fixture(scope="session")
def write_chaos_case() -> Callable[..., None]:
    """`write_chaos_case(root, number, data, labels, affine, folder="T2SPIR")`:
    DICOM and PNG as in the official CHAOS archive.
    """
    images = pytest.importorskip("PIL.Image")

    def write(
        root: Path, number: int, data: np.ndarray, labels: np.ndarray, affine: np.ndarray, folder: str = "T2SPIR"
    ) -> None:
        case = root / "Train_Sets/MR" / str(number) / folder
        names = [path.stem for path in write_dicom_series(case / "DICOM_anon", data, affine)]
        (case / "Ground").mkdir()
        greys = np.array([0, 63, 126, 189, 252], dtype=np.uint8)[labels]
        for index, name in enumerate(names):
            images.fromarray(np.ascontiguousarray(greys[:, :, index].T)).save(case / "Ground" / f"{name}.png")

    return write


@pytest.fixture
def hangup() -> Iterator[None]:
    """SIGHUP and SIGINT as a terminal sends them to processes that the test starts: those of tests under nohup, or in
    the background of a script, would ignore them.
    """
    before = [signal.signal(signal.SIGHUP, signal.SIG_DFL), signal.signal(signal.SIGINT, signal.default_int_handler)]
    yield
    for number, handler in zip((signal.SIGHUP, signal.SIGINT), before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """Lines of the log as a program prints them, from here on; `log_lines.clear()` begins anew."""
    lines: list[str] = []
    with forward_log(lines.append):
        yield lines


@pytest.fixture
def source(tmp_path: Path, write_case: WriteCase) -> Path:
    """Four small labelled cases, of four patients, in a folder of this test's own."""
    folder = tmp_path / "source"
    for number in range(1, 5):
        write_case(folder, f"{number:02d}-T2SPIR", seed=number)
    return folder


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory, write_case: WriteCase) -> Store:
    """A store of four small cases with three folds, to read from; its source lies beside it in `source`."""
    folder = tmp_path_factory.mktemp("small")
    for number in range(1, 5):
        write_case(folder / "source", f"{number:02d}-T2SPIR", seed=number)
    return prepare(folder / "source", folder / "store", DataConfig(), folds=3)


@pytest.fixture(scope="session")
def real_cases() -> Path:
    """The folder with `labelled/` and `unlabelled/` CHAOS cases; the test is skipped where it is absent."""
    if not REAL_CASES.is_dir():
        pytest.skip(f"the real CHAOS cases are not at {REAL_CASES}")
    return REAL_CASES


@pytest.fixture(scope="session")
def change_state() -> Callable[..., None]:
    """Other values in a checkpoint's state.json, which its manifest agrees with."""

    def change(checkpoint: Path, **changes: object) -> None:
        (checkpoint / "state.json").write_text(
            json.dumps(json.loads((checkpoint / "state.json").read_text()) | changes)
        )
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        manifest["sha256"]["state.json"] = sha256(checkpoint / "state.json")
        (checkpoint / MANIFEST).write_text(json.dumps(manifest))

    return change


StartFirefox = Callable[..., Firefox]


@pytest.fixture(scope="module")
def start_firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartFirefox]:
    """Firefox with preferences of about:config; tests are skipped where it or a display for it is missing."""
    if FIREFOX is None or XVFB is None:
        pytest.skip(
            "Firefox is not installed"
            if FIREFOX is None
            else "Xvfb is not installed, and Firefox needs a display for WebGL"
        )
    started: list[Firefox] = []

    def start(preferences: dict[str, bool | int | str]) -> Firefox:
        started.append(Firefox(tmp_path_factory.mktemp("firefox"), preferences))
        return started[-1]

    yield start
    for browser in started:
        browser.close()


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Attunet = Callable[..., Done]


@pytest.fixture
def attunet(capfd: pytest.CaptureFixture[str]) -> Attunet:
    """`attunet("prepare", source, store)` runs the command in this process."""

    def call(*arguments: object) -> Done:
        capfd.readouterr()
        code = run_command(cli, "attunet", [str(a) for a in arguments])
        out, err = capfd.readouterr()
        return Done(code, out, err)

    return call


@pytest.fixture
def succeed(attunet: Attunet) -> Attunet:
    """As `attunet`, for a command that must succeed."""

    def call(*arguments: object) -> Done:
        done = attunet(*arguments)
        assert done.code == 0, done.err
        return done

    return call
