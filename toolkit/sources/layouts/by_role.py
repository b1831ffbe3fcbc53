"""Layouts with a group of files for each case: a folder (`case_00000/imaging.nii.gz`) or a subject of BIDS.

A file's role is the part of its path that is the same in other groups.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from attunet.decisions import Decision
from attunet.errors import InputError
from attunet.io.nifti import nifti_shape
from attunet.io.pictures.images import IMAGE_SUFFIXES
from attunet.io.readers import is_single_file, stem_of
from attunet.sources.case_files import CaseFiles, Source, SourceOptions
from attunet.sources.layouts.matching import MASK_ROLE, case_names, names_one_of
from attunet.sources.layouts.numbers import other_number
from attunet.sources.layouts.series import series_folders
from attunet.sources.layouts.two_folders import names_images_or_masks

MAX_DEPTH = 4
USUAL_SHARE = 0.5  # a role of fewer groups than this share is no channel
SEPARATORS = "-_ ."
SUBJECT = re.compile(r"(sub-[A-Za-z0-9]+)(_ses-[A-Za-z0-9]+)?_(.+)")

Roles = dict[str, list[Path]]  # the files of each role; a case that needs a role with several is refused
Groups = Mapping[str, Roles]  # by case


def find_case_folders(root: Path, files: list[Path], options: SourceOptions) -> Source | None:
    """Cases in a folder each, with files by role: t1, t2 and seg, or ct and segmentations/liver, ..."""
    items = [*filter(is_single_file, files), *series_folders(files)]
    best: Groups = {}
    best_fit = (0, 0)
    for depth in range(1, MAX_DEPTH + 1):
        folders: defaultdict[Path, list[Path]] = defaultdict(list)
        for path in items:
            parts = path.relative_to(root).parts
            if len(parts) > depth or (len(parts) == depth and path.is_dir()):
                folders[Path(*parts[:depth])].append(path)
        if any(names_images_or_masks(folder) for folder in folders):
            continue  # these are no cases
        groups = {
            name: _roles_in(root / folder, inside)
            for name, (folder, inside) in zip(case_names(list(folders)), folders.items(), strict=True)
        }
        # Of two depths with as many cases it is the one where roles recur: pat1/20240131/t1 is t1 of pat1's visit
        fit = (len(_paired(groups)), -len({role for roles in groups.values() for role in roles}))
        if fit[0] and fit > best_fit:
            best, best_fit = groups, fit
    return _source(root, "case-folders", "each case has a folder of files by role", best, options)


def find_bids(root: Path, files: list[Path], options: SourceOptions) -> Source | None:
    """Cases of BIDS: `sub-X[_ses-Y]_..._T1w.nii.gz`, with masks there or below derivatives/."""
    groups: defaultdict[str, Roles] = defaultdict(lambda: defaultdict(list))
    for path in filter(is_single_file, files):
        if match := SUBJECT.fullmatch(stem_of(path)):
            groups[match[1] + (match[2] or "")][match[3]].append(path)
    source = _source(root, "bids", "names are those of BIDS", groups, options)
    if source is None:
        return None
    return replace(source, cases=tuple(replace(c, patient=c.case.partition("_")[0]) for c in source.cases))


def _roles_in(folder: Path, items: Iterable[Path]) -> Roles:
    """Files of a case's folder by role: paths below it, without the case's name."""
    stems = {path: (path.parent / stem_of(path)).relative_to(folder).as_posix() for path in items}
    if folder in stems:
        stems[folder] = ""
    names = [part for stem in stems.values() for part in stem.split("/") if part]
    common = os.path.commonprefix(names) if len(names) > 1 else ""  # noqa: RUF071 (names, not paths)
    common = common[: max(map(common.rfind, SEPARATORS)) + 1] if any(map(str.isdigit, common)) else ""
    roles: Roles = defaultdict(list)
    for path, stem in sorted(stems.items()):
        parts = [_without_case(part, folder.name, common) for part in stem.split("/")]
        roles["/".join(filter(None, parts)) or "image"].append(path)
    return roles


def _without_case(part: str, case: str, common: str) -> str:
    rest = part[len(case) :]
    if part.lower().startswith(case.lower()) and (not rest or rest[0] in SEPARATORS):
        return rest.strip(SEPARATORS)
    return part.removeprefix(common).strip(SEPARATORS)


def is_mask_role(role: str) -> bool:
    """True if a part of a role is a word for masks."""
    return any(MASK_ROLE.fullmatch(word) for word in re.split(r"[-_ ./]+", role))


def _paired(groups: Groups) -> list[str]:
    """The groups that have an image and a mask."""
    return [case for case, roles in groups.items() if len(set(map(is_mask_role, roles))) == 2]


def _may_be_several(roles: Roles) -> bool:
    """True for images in a folder of that name, or of other numbers than the masks.

    With one such group, nothing shows that they are one case's.
    """
    images = [role for role in roles if not is_mask_role(role)]
    masks = [role.replace("/", "_") for role in roles if is_mask_role(role)]
    in_folder = any(names_images_or_masks(Path(part)) for role in images for part in Path(role).parts[:-1])
    return in_folder or any(other_number(image.replace("/", "_"), masks) for image in images)


def _source(root: Path, layout: str, reason: str, groups: Groups, options: SourceOptions) -> Source | None:
    """The source of groups; None where they have no masks and images by role."""
    groups, decisions = _with_one_image(_without_snapshots(groups))
    labelled = [groups[case] for case in _paired(groups)]
    if len(labelled) * 2 < len(groups) or not labelled or (len(labelled) == 1 and _may_be_several(labelled[0])):
        return None
    counts = Counter(role for roles in labelled for role in roles)
    channels, of_channels = _channels(labelled, counts, options.images)
    decisions += of_channels
    if not channels or (len(labelled) > 1 and max(counts[role] for role in channels) < 2):
        return None  # no image has the same role in two cases
    chosen = _mask_roles(counts, options.masks)
    cases, used = [], set[Path]()
    for case, roles in groups.items():
        images = [_only_file(case, roles[role]) for role in channels if role in roles]
        labels = [_only_file(case, roles[role]) for role in sorted(roles) if role in chosen]
        if not images:
            if labels:
                raise InputError(f"{labels[0]}: {case} has this mask and none of the images {', '.join(channels)}")
            continue
        if missing := [role for role in channels if role not in roles]:
            raise InputError(
                f"{images[0]}: {case} has no file {missing[0]}, which other cases have; choose channels with --images "
                "NAME,..."
            )
        cases.append(CaseFiles(case, case, tuple(images), _slice_masks(images, labels)))
        used |= {*images, *labels}
    files = [path for roles in groups.values() for paths in roles.values() for path in paths]
    notes = []
    if left := [path for path in files if path not in used]:
        names = ", ".join(sorted({path.name for path in left})[:5])
        notes.append(f"{len(left)} of {len(files)} files have other roles and are left out: {names}")
    named = tuple(channels) if len(channels) > 1 else ()
    if named:
        decisions.append(Decision("image-roles", f"the channels are {', '.join(named)}"))
    source = Source(root, layout, reason, (), tuple(cases), decisions=tuple(decisions), notes=tuple(notes))
    return replace(source, channels=named, left_out=frozenset(left))


def _only_file(case: str, paths: Sequence[Path]) -> Path:
    if len(paths) > 1:
        raise InputError(f"{paths[1]}: {case} has this file twice, also as {paths[0]}: leave one out")
    return paths[0]


def _without_snapshots(groups: Groups) -> Groups:
    """Leave out pictures where images are volumes: a program's view of a scan is no channel and no mask of it."""
    images = [path for roles in groups.values() for role in roles if not is_mask_role(role) for path in roles[role]]
    if not any(is_single_file(path) and not _is_picture(path) for path in images):
        return groups
    return {
        case: {role: paths for role, paths in roles.items() if not all(map(_is_picture, paths))}
        for case, roles in groups.items()
    }


def _is_picture(path: Path) -> bool:
    return path.name.lower().endswith(IMAGE_SUFFIXES)


def _with_one_image(groups: Groups) -> tuple[Groups, list[Decision]]:
    """Give the images of cases the same role where every case has one, and each of them another name."""
    renamed: dict[str, Roles] = {}
    names = []
    for case, roles in groups.items():
        image, *others = [role for role in roles if not is_mask_role(role)] or ["", ""]
        folders = {(Path(image).parent, Path(role).parent) for role in roles}
        if others or not all(one.is_relative_to(other) or other.is_relative_to(one) for one, other in folders):
            return groups, []
        renamed[case] = {"image" if role == image else role: paths for role, paths in roles.items()}
        names.append(image)
    if len(names) < 2 or len(set(names)) < len(names):
        return groups, []
    text = f"the only image of each case is its image, whatever its name: {', '.join(names[:5])}"
    return renamed, [Decision("image-roles", text)]


def _slice_masks(images: Sequence[Path], labels: Sequence[Path]) -> tuple[Path, ...]:
    """The masks; the folder of a picture for each slice, where the image is a DICOM series."""
    folders = {path.parent for path in labels}
    pictures = all(map(_is_picture, labels))
    a_slice_each = len(labels) > 1 and len(folders) == 1 and pictures
    return tuple(folders) if len(images) == 1 and images[0].is_dir() and a_slice_each else tuple(labels)


def _channels(
    groups: Sequence[Roles], counts: Mapping[str, int], images: Sequence[str]
) -> tuple[list[str], list[Decision]]:
    """The roles of images that become channels: the user's, or the usual ones on the mask's grid."""
    smallest = USUAL_SHARE * len(groups)
    usual = [role for role, count in sorted(counts.items()) if not is_mask_role(role) and count >= smallest]
    if images:
        roles = [_role(name, usual) for name in images]
        if missing := [role for role in roles if role not in counts]:
            raise InputError(f"--images: no file is named {missing[0]}; there are {', '.join(usual)}")
        return roles, []
    if len(usual) < 2:
        return usual, []
    first = next(roles for roles in groups if usual[0] in roles)
    grid = next((nifti_shape(first[role][0]) for role in sorted(first) if is_mask_role(role)), ())[:3]
    same = [role for role in usual if role in first and nifti_shape(first[role][0])[:3] == grid] if grid else usual
    if not same or len(same) == len(usual):
        return usual, []
    other = ", ".join(sorted(set(usual) - set(same)))
    return same, [Decision("image-roles", f"left out, of another shape than the mask: {other}")]


def _role(name: str, usual: Sequence[str]) -> str:
    """The role that a user's name means: the one of that name, else the first with it in its own."""
    like = [role for role in usual if name.lower() in role.lower()]
    return next((role for role in like if role.lower() == name.lower()), like[0] if like else name)


def _mask_roles(counts: Mapping[str, int], masks: Sequence[str]) -> set[str]:
    """Choose the roles of masks: the user's; else a role that is just a word for masks; else the most frequent kind."""
    roles = [role for role in counts if is_mask_role(role)]
    if masks:
        return {role for role in roles if names_one_of(masks, role)}
    plain = [role for role in roles if "/" not in role and MASK_ROLE.fullmatch(role)]
    if len(plain) == 1:
        return set(plain)
    kinds: defaultdict[str, list[int]] = defaultdict(list)
    for role in roles:
        kinds[role.rpartition("/")[0]].append(counts[role])
    best = max(kinds, key=lambda kind: (max(kinds[kind]), sum(kinds[kind])))
    return {role for role in roles if role.rpartition("/")[0] == best}
