"""A source in an archive: the files that are unpacked, and their folder."""

import logging
import re
import shutil
from pathlib import Path

from attunet.errors import InputError
from attunet.io.archives import ARCHIVE_SUFFIXES, extract, member_names
from attunet.io.pictures.annotations import ANNOTATION_SUFFIXES
from attunet.io.readers import COMPANIONS, is_readable
from attunet.sources.layouts.chaos import CT_SERIES, MR_SERIES
from attunet.sources.layouts.two_folders import LABEL_MAP
from attunet.system.atomic_files import sha256, write_text

logger = logging.getLogger(__name__)

# Zenodo record 3431873, CHAOS_Train_Sets.zip
PUBLISHED_CHAOS = "535f7d3417a0e0f0d9133fb3d962423d2a9cf3f103e4f09a3d8a1daf87d5d2fc"
DONE = ".unpacked"


def is_archive(source: Path) -> bool:
    """True for a file whose name ends as an archive's that is read here."""
    return source.is_file() and source.name.lower().endswith(ARCHIVE_SUFFIXES)


def unpack(archive: Path, into: Path, layout: str) -> str:
    """Unpack the files that a source of this layout may need, unless an earlier, killed call has done so.

    The folder `into` is emptied first. With auto, the CT series of a CHAOS archive that has MR are left out. Returns
    the archive's SHA-256. Raises InputError if the archive changes meanwhile.
    """
    checksum = sha256(archive)
    names = member_names(archive)
    if any(MR_SERIES.fullmatch(name) or CT_SERIES.fullmatch(name) for name in names):
        published = "is" if checksum == PUBLISHED_CHAOS else "is not"
        logger.info(f"{archive}: its SHA-256 {published} that of the published CHAOS_Train_Sets.zip ({checksum})")
    mark = into / DONE
    if mark.is_file() and mark.read_text(encoding="utf-8") == f"{checksum} {layout}":
        return checksum
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    only_mr = layout in ("auto", "chaos-mr") and any(map(MR_SERIES.fullmatch, names))
    unwanted = re.compile(r"(?:.*/)?CT/.*" if only_mr else "(?!)")
    count = extract(archive, into, lambda name: _may_be_needed(name) and not unwanted.fullmatch(name))
    if sha256(archive) != checksum:
        raise InputError(f"{archive}: was changed while it was unpacked: prepare it when nothing writes to it")
    left = ", without the CT series (--layout chaos-ct takes them)" if only_mr else ""
    logger.info(f"{archive}: unpacked {count} of {len(names)} files{left}")
    write_text(mark, f"{checksum} {layout}")
    return checksum


def _may_be_needed(name: str) -> bool:
    path = Path(name)
    if any(part.startswith((".", "__MACOSX")) for part in path.parts):
        return False
    kinds = (*ANNOTATION_SUFFIXES, *COMPANIONS, LABEL_MAP, ".txt", ".csv")  # lists that a layout may read are small
    return is_readable(path) or path.name.lower().endswith(kinds) or not path.suffix
