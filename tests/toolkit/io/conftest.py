"""What the tests of all formats share: a file that is refused in one line, and little memory."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from attunet.errors import InputError
from attunet.io.readers import read_volume
from attunet.system.environment import peak_resident_mb


@pytest.fixture
def refused() -> Callable[..., str]:
    """A function that reads a file, or calls `read` with it, and matches and returns the one line that refuses it."""

    def refuse(path: Path, rule: str, read: Callable[[Path], object] = read_volume) -> str:
        with pytest.raises(InputError, match=rule) as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
        return str(caught.value)

    return refuse


@pytest.fixture
def little_memory() -> Callable[..., AbstractContextManager[None]]:
    """A context in which this process may take some MB beyond what it has: 100, or as many as are given."""

    @contextmanager
    def bounded(megabytes: float = 100) -> Iterator[None]:
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        except OSError:
            pytest.skip("this system does not forget the peak of a process's memory")
        before = peak_resident_mb()
        assert before is not None
        yield
        peak = peak_resident_mb()
        assert peak is not None
        assert peak - before < megabytes

    return bounded


@pytest.fixture
def edit_dicom() -> Callable[..., None]:
    """A function that changes elements of a DICOM file; None deletes one."""
    pydicom = pytest.importorskip("pydicom")

    def edit(path: Path, **elements: object) -> None:
        dataset = pydicom.dcmread(path)
        for name, value in elements.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
        dataset.save_as(path)

    return edit
