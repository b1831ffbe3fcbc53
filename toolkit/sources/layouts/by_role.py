"""Layouts with a group of files for each case: a folder (`case_00000/imaging.nii.gz`) or a subject of BIDS.

A file's role is the part of its path that is the same in other groups.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attunet.decisions import Decision
from attunet.errors import InputError
from attunet.io.pictures.images import IMAGE_SUFFIXES
from attunet.io.readers import is_single_file, stem_of
from attunet.sources.case_files import CaseFiles, Source
from attunet.sources.layouts.headers import shape_of
from attunet.sources.layouts.matching import MASK_ROLE, flat
from attunet.sources.layouts.series import series_folders

MAX_DEPTH = 4
USUAL_SHARE = 0.5  # a role of fewer groups than this share is no channel
SEPARATORS = "-_ ."
SUBJECT = re.compile(r"(sub-[A-Za-z0-9]+)(_ses-[A-Za-z0-9]+)?_(.+)")

Roles = dict[str, Path]


def find_case_folders(
    root: Path, files: list[Path], images: Sequence[str] = (), masks: Sequence[str] = ()
) -> Source | None:
    """Cases of a folder for each, with files by role: imaging and segmentation, t1, t2 and seg,
    ct and segmentations/liver, ...

    Args:
        root: the folder.
        files: its files.
        images: the roles that are channels, in their order (`--images`); all usual ones by default.
        masks: parts of roles of masks (`--masks`).
    """
    items = [*(path for path in files if is_single_file(path)), *series_folders(files)]
    best: dict[str, tuple[str, Roles]] = {}
    for depth in range(1, MAX_DEPTH + 1):
        groups: defaultdict[Path, list[Path]] = defaultdict(list)
        for path in items:
            parts = path.relative_to(root).parts
            if len(parts) > depth or (len(parts) == depth and path.is_dir()):
                groups[Path(*parts[:depth])].append(path)
        unique = len({folder.name for folder in groups}) == len(groups)
        named = {
            folder.name if unique else flat(folder): (folder.name, _roles_in(root / folder, inside))
            for folder, inside in groups.items()
        }
        if len(_paired(named)) > len(_paired(best)):
            best = named
    return _source(root, "case-folders", "each case has a folder of files by role", best, images, masks)


def find_bids(root: Path, files: list[Path], images: Sequence[str] = (), masks: Sequence[str] = ()) -> Source | None:
    """Cases of BIDS: `sub-X[_ses-Y]_..._T1w.nii.gz`, with masks there or below derivatives/.
    Arguments are as for `find_case_folders`.
    """
    groups: defaultdict[str, Roles] = defaultdict(dict)
    patients: dict[str, str] = {}
    for path in files:
        match = SUBJECT.fullmatch(stem_of(path)) if is_single_file(path) else None
        if match:
            case = match[1] + (match[2] or "")
            patients[case] = match[1]
            groups[case].setdefault(match[3], path)
    named = {case: (patients[case], roles) for case, roles in groups.items()}
    return _source(root, "bids", "names are those of BIDS", named, images, masks)


def _roles_in(folder: Path, items: Iterable[Path]) -> Roles:
    """Files of a case's folder by role: paths below it, without the case's name."""
    stems = {path: (path.parent / stem_of(path)).relative_to(folder).as_posix() for path in items}
    if folder in stems:
        stems[folder] = ""
    names = [part for stem in stems.values() for part in stem.split("/") if part]
    common = _common_start(names) if len(names) > 1 else ""
    common = (
        common[: max((common.rfind(s) for s in SEPARATORS), default=-1) + 1] if any(c.isdigit() for c in common) else ""
    )
    roles: Roles = {}
    for path, stem in sorted(stems.items()):
        parts = [_without_case(part, folder.name, common) for part in stem.split("/")]
        roles.setdefault("/".join(part for part in parts if part) or "image", path)
    return roles


def _common_start(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def _without_case(part: str, case: str, common: str) -> str:
    if part.lower().startswith(case.lower()):
        return part[len(case) :].strip(SEPARATORS)
    return part.removeprefix(common).strip(SEPARATORS)


def is_mask_role(role: str) -> bool:
    """True where a part of a role is a word for masks."""
    return any(MASK_ROLE.fullmatch(word) for word in re.split(r"[-_ ./]+", role))


def _source(
    root: Path,
    layout: str,
    reason: str,
    groups: Mapping[str, tuple[str, Roles]],
    images: Sequence[str],
    masks: Sequence[str],
) -> Source | None:
    """The source of groups `{case: (patient, {role: file})}`; None where they have no masks and images by role."""
    paired = _paired(groups)
    if len(paired) * 2 < len(groups) or not paired:
        return None
    labelled = {case: groups[case][1] for case in paired}
    counts = Counter(role for case in paired for role in groups[case][1])
    channels, decisions = _channels(labelled, counts, images)
    chosen = _mask_roles(counts, masks)
    cases, left = [], list[Path]()
    for case, (patient, roles) in groups.items():
        if not (pictures := [roles[role] for role in channels if role in roles]):
            left += roles.values()
            continue
        if len(pictures) < len(channels):
            missing = next(role for role in channels if role not in roles)
            raise InputError(
                f"{pictures[0]}: {case} has no file {missing}, which other cases have; choose channels with --images "
                "NAME,..."
            )
        labels = [roles[role] for role in sorted(roles) if role in chosen]
        cases.append(CaseFiles(case, patient, tuple(pictures), _slice_masks(pictures, labels)))
        left += [path for role, path in roles.items() if role not in channels and role not in chosen]
    total = sum(len(roles) for _, roles in groups.values())
    notes = (
        [
            f"{len(left)} of {total} files have other roles and are left out: "
            f"{', '.join(sorted({path.name for path in left})[:5])}"
        ]
        if left
        else []
    )
    if len(channels) > 1:
        decisions.append(Decision("image-roles", f"the channels are {', '.join(channels)}"))
    named = tuple(channels) if len(channels) > 1 else ()
    return Source(
        root, layout, reason, (), tuple(cases), decisions=tuple(decisions), notes=tuple(notes), channels=named
    )


def _slice_masks(images: Sequence[Path], labels: Sequence[Path]) -> tuple[Path, ...]:
    """The masks; the folder of a picture for each slice, where the image is a DICOM series."""
    folders = {path.parent for path in labels}
    a_slice_each = (
        len(labels) > 1 and len(folders) == 1 and all(path.name.lower().endswith(IMAGE_SUFFIXES) for path in labels)
    )
    return tuple(folders) if len(images) == 1 and images[0].is_dir() and a_slice_each else tuple(labels)


def _paired(groups: Mapping[str, tuple[str, Roles]]) -> list[str]:
    """The groups that have an image and a mask."""
    return [case for case, (_, roles) in groups.items() if len({is_mask_role(role) for role in roles}) == 2]


def _channels(
    groups: Mapping[str, Roles], counts: Counter[str], images: Sequence[str]
) -> tuple[list[str], list[Decision]]:
    """The roles of images that become channels: the user's, or the usual ones on the mask's grid."""
    usual = [
        role for role, count in sorted(counts.items()) if not is_mask_role(role) and count >= USUAL_SHARE * len(groups)
    ]
    if images:
        roles = [next((role for role in usual if name.lower() in role.lower()), name) for name in images]
        if missing := [role for role in roles if role not in counts]:
            raise InputError(f"--images: no file is named {missing[0]}; there are {', '.join(usual)}")
        return roles, []
    decisions: list[Decision] = []
    if len(usual) > 1:
        first = next(roles for roles in groups.values() if all(role in roles for role in usual[:1]))
        grids = {role: (shape_of(first[role]) or ())[:3] for role in usual if role in first}
        mask = next((shape_of(first[role]) or () for role in sorted(first) if is_mask_role(role)), ())[:3]
        same = [role for role in usual if grids.get(role) == mask] if mask else usual
        if same and len(same) < len(usual):
            other = ", ".join(sorted(set(usual) - set(same)))
            decisions.append(Decision("image-roles", f"left out, of another shape than the mask: {other}"))
            usual = same
    return usual, decisions


def _mask_roles(counts: Counter[str], masks: Sequence[str]) -> set[str]:
    """Choose the roles of masks: the user's; else a role that is just a word for masks; else the most frequent kind."""
    roles = [role for role in counts if is_mask_role(role)]
    if masks:
        return {role for role in roles if any(text.lower() in role.lower() for text in masks)}
    plain = [role for role in roles if "/" not in role and MASK_ROLE.fullmatch(role)]
    if len(plain) == 1:
        return set(plain)
    parents = Counter(role.rpartition("/")[0] for role in roles for _ in range(counts[role]))
    best = max(
        parents, key=lambda parent: (max(counts[r] for r in roles if r.rpartition("/")[0] == parent), parents[parent])
    )
    return {role for role in roles if role.rpartition("/")[0] == best}
