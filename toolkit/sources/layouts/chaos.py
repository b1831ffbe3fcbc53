"""The official CHAOS tree: DICOM series with PNG masks, by patient and sequence."""

import re
from pathlib import Path

from attunet.classes import CHAOS_MR, Classes
from attunet.sources.case_files import CaseFiles, Source

GREYS = Classes(CHAOS_MR.names, (0, 63, 126, 189, 252))
GREY_RANGES = ((0, 0), (55, 70), (110, 135), (175, 200), (240, 255))
CT = Classes(("background", "liver"), (0, 255))
CT_RANGES = ((0, 0), (1, 255))

MR_SERIES = re.compile(r"(?:.*/)?MR/(\d+)/(T2SPIR|T1DUAL)/DICOM_anon(?:/(InPhase|OutPhase))?/[^/]+\.dcm", re.IGNORECASE)
CT_SERIES = re.compile(r"(?:.*/)?CT/(\d+)/DICOM_anon/[^/]+\.dcm", re.IGNORECASE)


def find_chaos(root: Path, files: list[Path], modality: str) -> Source | None:
    """`MR/<id>/T2SPIR/{DICOM_anon,Ground}`, `MR/<id>/T1DUAL/{DICOM_anon/{InPhase,OutPhase},Ground}` or
    `CT/<id>/{DICOM_anon,Ground}`.

    Series differ by their folders, since both phases share their UIDs. Numbers become two digits, as in other copies.
    """
    pattern = MR_SERIES if modality == "MR" else CT_SERIES
    named = root.resolve().name + "/"  # the user may have named MR/ itself
    cases: dict[Path, CaseFiles] = {}
    for path in files:
        match = pattern.fullmatch(named + path.relative_to(root).as_posix())
        if match and path.parent not in cases:
            cases[path.parent] = _case(
                path.parent, f"{int(match[1]):02d}", [part for part in match.groups()[1:] if part]
            )
    if not cases:
        return None
    reason = f"{len(cases)} DICOM series lie where CHAOS has {modality}"
    if modality == "CT":
        return Source(root, "chaos-ct", reason, (CT,), tuple(cases.values()), grey_ranges=CT_RANGES)
    other = any(CT_SERIES.fullmatch(named + path.relative_to(root).as_posix()) for path in files)
    notes = ("the CT series are left out; --layout chaos-ct takes them",) if other else ()
    return Source(root, "chaos-mr", reason, (GREYS,), tuple(cases.values()), grey_ranges=GREY_RANGES, notes=notes)


def _case(series: Path, patient: str, names: list[str]) -> CaseFiles:
    sequence = next(p for p in series.parents if (p / "DICOM_anon").is_dir())
    ground = sequence / "Ground"
    return CaseFiles(
        "-".join([patient, *names]) if names else f"{patient}-CT",
        patient,
        (series,),
        (ground,) if ground.is_dir() else (),
    )
