"""The official CHAOS tree: DICOM series with PNG masks, by patient and sequence."""

import re
from pathlib import Path

from attunet.classes import Classes
from attunet.sources.case_files import CaseFiles, Source, SourceOptions
from attunet.sources.labels.codings import CHAOS_GREYS

GREY_RANGES = ((0, 0), (55, 70), (110, 135), (175, 200), (240, 255))
CT = Classes(("background", "liver"), (0, 255))
CT_RANGES = ((0, 0), (1, 255))

MR_SERIES = re.compile(r"(?:.*/)?MR/(\d+)/(T2SPIR|T1DUAL)/DICOM_anon(?:/(InPhase|OutPhase))?/[^/]+\.dcm", re.IGNORECASE)
CT_SERIES = re.compile(r"(?:.*/)?CT/(\d+)/DICOM_anon/[^/]+\.dcm", re.IGNORECASE)


def find_chaos_mr(root: Path, files: list[Path], _: SourceOptions) -> Source | None:
    """Cases of `MR/<id>/T2SPIR/{DICOM_anon,Ground}` and `MR/<id>/T1DUAL/{DICOM_anon/{InPhase,OutPhase},Ground}`.

    Series differ by their folders, since both phases share their UIDs.
    """
    cases = _cases(root, files, MR_SERIES)
    if not cases:
        return None
    reason = f"{len(cases)} DICOM series lie where CHAOS has MR"
    notes = ("the CT series are left out; --layout chaos-ct takes them",) if _cases(root, files, CT_SERIES) else ()
    return Source(root, "chaos-mr", reason, (CHAOS_GREYS,), cases, grey_ranges=GREY_RANGES, notes=notes)


def find_chaos_ct(root: Path, files: list[Path], _: SourceOptions) -> Source | None:
    """Cases of `CT/<id>/{DICOM_anon,Ground}`."""
    cases = _cases(root, files, CT_SERIES)
    reason = f"{len(cases)} DICOM series lie where CHAOS has CT"
    return Source(root, "chaos-ct", reason, (CT,), cases, grey_ranges=CT_RANGES) if cases else None


def _cases(root: Path, files: list[Path], pattern: re.Pattern[str]) -> tuple[CaseFiles, ...]:
    """The cases of the series at a place; their numbers become two digits, as in other copies."""
    cases: dict[Path, CaseFiles] = {}
    named = root.resolve().name  # the user may have named MR/ itself
    for path in files:
        series = path.parent
        match = pattern.fullmatch(f"{named}/{path.relative_to(root).as_posix()}")
        if match and series not in cases:
            patient, *names = (part for part in match.groups() if part)
            patient = f"{int(patient):02d}"
            ground = next(p for p in (series, *series.parents) if p.name.lower() == "dicom_anon").parent / "Ground"
            labels = (ground,) if ground.is_dir() else ()
            cases[series] = CaseFiles("-".join([patient, *(names or ["CT"])]), patient, (series,), labels)
    return tuple(cases.values())
