"""The files of label maps."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from attunet.errors import InputError
from attunet.export.runtime.origin import check_place
from attunet.io.dicom.organ_codes import Code
from attunet.io.writers import suffixes_for
from attunet.sources.input import Input
from attunet.sources.pseudonymise import NOT_SHOWN
from attunet.system.lock import Lock, require_free, writing
from attunet.system.outputs import require_own_folder

logger = logging.getLogger(__name__)


def check_output(source: Path, inputs: Sequence[Input], output: Path) -> bool:
    """True if the output is the label map of a single input, False for a folder; InputError if it does not fit."""
    if source.is_file() or inputs[0].files == (source,):
        endings = suffixes_for(inputs[0].files)
        if not output.name.lower().endswith(endings):
            raise InputError(f"{output}: the label map's name must end in {' or '.join(dict.fromkeys(endings))}")
        check_place(output, inputs[0].files)
        return True
    endings = tuple({ending for one in inputs for ending in suffixes_for(one.files)})
    if output.name.lower().endswith(endings) and not output.is_dir():
        raise InputError(f"{output}: must be a folder for the label maps of {source}, got the name of one")
    places = [output, *(output / one.name for one in inputs)]
    if output.is_file() or any(place.resolve().is_relative_to(source.resolve()) for place in places):
        raise InputError(f"{output}: must be a folder outside the input's")
    require_own_folder(output, "label maps")
    return False


def label_maps(inputs: Sequence[Input], output: Path, *, is_one: bool, dicom_seg: bool) -> list[Path]:
    """The file of each input's label map: `output` itself where `is_one`, else in that folder. With `dicom_seg` those
    of DICOM series become DICOM SEG; raises InputError where none would.
    """
    known = [suffixes_for(one.files) for one in inputs]
    endings = [".dcm" if dicom_seg and ".dcm" in each else each[0] for each in known]
    files = [output] if is_one else [output / f"{one.name}{end}" for one, end in zip(inputs, endings, strict=True)]
    if dicom_seg and not any(file.suffix.lower() == ".dcm" for file in files):
        why = f"{output} must end in .dcm" if is_one and ".dcm" in known[0] else "no input is a DICOM series"
        raise InputError(f"--dicom-seg: {why}")
    return files


def check_codes(codes: Mapping[str, Code], names: Sequence[str], files: Sequence[Path]) -> None:
    """Raises InputError where no file of label maps holds codes; warns of codes of other classes than the model's."""
    if not any(file.suffix.lower() == ".dcm" for file in files):
        raise InputError("--codes: is for DICOM SEG, and no label map ends in .dcm")
    if others := [name for name in codes if name not in names]:
        logger.warning(f"--codes: {', '.join(others)}: no classes of the model, which has {', '.join(names)}")


def warn_left_out(source: Path, text: str, *, is_hidden: bool = False) -> None:
    """Warn of files of a folder that are left out; with `is_hidden` without the text, which has names."""
    logger.warning(f"{source}: {f'a line about its files: {NOT_SHOWN}' if is_hidden else text}")


@contextmanager
def writing_label_maps(folder: Path, shard: tuple[int, int]) -> Iterator[None]:
    """Holds the lock of one process's label maps in a folder; `shard` is its number, and how many share the folder.
    Raises InputError while processes write there that do not share the work with this one: alone, or as shares of
    another count.
    """
    number, count = shard
    with writing(folder, "prediction", part=f".{number}-of-{count}" if count > 1 else "") as own:
        name = re.escape(writing(folder, "prediction").path.name.removesuffix(".lock"))
        locks = [
            Lock(path, folder, "prediction")
            for path in own.path.parent.iterdir()
            if (share := re.fullmatch(rf"{name}(\.[0-9]+-of-([0-9]+))?\.lock", path.name)) is not None
            and int(share[2] or 1) != count
        ]
        require_free(locks)
        yield
