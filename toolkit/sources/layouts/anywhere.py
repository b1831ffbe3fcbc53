"""The last layout to try: masks are recognised by their names, or the names of their folders, anywhere."""

from pathlib import Path

from attunet.sources.case_files import CaseFiles, Source, SourceOptions
from attunet.sources.layouts.matching import by_stem, case_names, match_masks, names_a_mask


def find_anywhere(root: Path, files: list[Path], _: SourceOptions) -> Source | None:
    """Cases of images and masks in unlike folders: `part1/volume-0.nii` with `segmentations/segmentation-0.nii`."""
    readable = by_stem(root, files)
    masks = {stem for stem in readable if any(map(names_a_mask, stem.split("/")))}
    images = sorted(set(readable) - masks)
    matched = match_masks(images, masks) if masks and images else None
    if matched is None:
        return None
    cases = tuple(
        CaseFiles(name, name, (readable[stem],), tuple(readable[mask] for mask in matched.get(stem, [])))
        for stem, name in zip(images, case_names([Path(stem) for stem in images]), strict=True)
    )
    return Source(root, "anywhere", f"{len(masks)} masks have the name of an image", (), cases)
