"""The last layout to try: masks are recognised by their names, or the names of their folders,
anywhere below the folder.
"""

from pathlib import Path

from attunet.io.readers import is_single_file
from attunet.sources.case_files import CaseFiles, Source
from attunet.sources.layouts.matching import by_stem, flat, match_masks, names_a_mask


def find_anywhere(root: Path, files: list[Path]) -> Source | None:
    """Cases of images and masks in unlike folders: `volume_pt1/volume-0.nii` with
    `segmentations/segmentation-0.nii`.
    """
    readable = by_stem(root, [path for path in files if is_single_file(path)])
    masks = {stem for stem in readable if any(names_a_mask(part) for part in stem.split("/"))}
    images = set(readable) - masks
    matched = match_masks(images, masks) if masks and images else None
    if matched is None:
        return None
    unique = len({Path(stem).name for stem in images}) == len(images)
    names = {stem: Path(stem).name if unique else flat(Path(stem)) for stem in sorted(images)}
    cases = tuple(
        CaseFiles(name, name, (readable[stem],), tuple(readable[mask] for mask in matched.get(stem, [])))
        for stem, name in names.items()
    )
    return Source(root, "anywhere", f"{len(masks)} masks have the name of an image", (), cases)
