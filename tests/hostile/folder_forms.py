"""Files that are read with others beside them: the halves of a pair, the parts of a checkpoint."""

import functools
import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

from attunet.io.readers import read_mask, read_volume

VOXELS = np.random.default_rng(0).integers(0, 900, (9, 7, 4)).astype(np.int16)
OTHER = {".hdr": ".img", ".img": ".hdr", ".mhd": ".raw"}


@functools.cache
def pair(name: str) -> dict[str, bytes]:
    """Both files of an Analyze or MetaImage pair by their endings, as nibabel or SimpleITK writes them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        if path.suffix == ".mhd":
            import SimpleITK

            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOXELS), str(path))
        else:
            nib.save(nib.Spm99AnalyzeImage(VOXELS, np.diag([-2, 2, 3, 1])), path.with_suffix(".hdr"))
        return {made.suffix: made.read_bytes() for made in Path(folder).iterdir()}


def read_pair(path: Path) -> None:
    """Read one file with the whole other one beside it."""
    other = OTHER[path.suffix]
    path.with_suffix(other).write_bytes(pair(path.name)[other])
    header = path.with_suffix(".hdr") if path.suffix == ".img" else path
    for read in (read_volume, read_mask):
        read(header)


@functools.cache
def checkpoint() -> dict[str, bytes]:
    """The files of a small checkpoint by their names."""
    from safetensors.torch import save

    from attunet.classes import Classes
    from attunet.config import Config, ModelConfig
    from attunet.models import build_model
    from attunet.runs.run_state import RunState
    from attunet.volumes.spec import Preprocessing, PreprocessSpec
    from attunet.volumes.training_ranges import TrainingRanges

    config = Config(model=ModelConfig(name="unet", depth=1)).resolve(base_width=4, epochs=1, batch_size=2)
    preprocessing = Preprocessing(PreprocessSpec(orientation="LPS", slice_axis=2, spacing_mm=1.6, size=(16, 16)))
    classes = Classes(("background", "liver"), (0, 1))
    state = RunState(
        config=config,
        preprocessing=preprocessing,
        classes=classes,
        ranges=TrainingRanges("mm", ((1, 2),) * 3, ((9, 10),) * 3, ((3, 4),), ((5, 6),)),
        store=Path("store"),
        store_sha256="0" * 64,
        fold=0,
        training_cases={"01": "1" * 64},
        training_labels={"01": "2" * 64},
        held_out=["02"],
    )
    weights = build_model(config.model, preprocessing.spec.in_channels, len(classes)).state_dict()
    return {"state.json": json.dumps(state.to_json()).encode(), "average.safetensors": save(weights)}


def read_parts(path: Path) -> None:
    """Read a checkpoint of which one file was exchanged, and the hashes with it."""
    from attunet.runs.read_checkpoint import read_checkpoint
    from attunet.system.atomic_files import write_folder

    content = path.read_bytes()
    files = {**checkpoint(), path.name: content}
    folder = path.parent / "step-1"
    write_folder(folder, {name: lambda file, data=data: file.write_bytes(data) for name, data in files.items()})
    read_checkpoint(folder, ("average",))
