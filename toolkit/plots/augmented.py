"""Slices of a store beside some of their augmented versions, with the outlines of the labels."""

from pathlib import Path

import numpy as np
import torch

from attunet.config import AugmentConfig
from attunet.errors import InputError
from attunet.loading.augment import Augmenter
from attunet.plots.contact_sheet import Tile, draw_contact_sheet
from attunet.plots.view import fullest_slice
from attunet.store import Store
from attunet.store_damage import verify_case
from attunet.volumes.slices import gather_context

SLICES, DRAWS = 4, 6


def draw_augmented(path: Path, store: Store, config: AugmentConfig) -> Path:
    """Draw a row per slice of four cases: as it is in the store, and as six epochs of a training would get it.

    Raises InputError where no case has labels, or where an array is not the one that was prepared.
    """
    labelled = [case.name for case in store.cases if case.labelled]
    if not labelled:
        raise InputError(f"{store.path}: has no labelled case, so nothing to train on")
    augmenter = Augmenter(config, store.spec.size, torch.device("cpu"))
    tiles = []
    for number, case in enumerate(labelled[:SLICES]):
        verify_case(store, case)
        images, labels = store.image(case), store.label(case)
        chosen = fullest_slice(labels)
        image = torch.from_numpy(gather_context(images, [chosen], store.spec.context_slices)).float()
        label = torch.from_numpy(labels[[chosen]])
        many = (image.expand(DRAWS, -1, -1, -1), label.expand(DRAWS, -1, -1))
        changed = augmenter(*many, seed=0, epochs=np.arange(DRAWS), samples=np.full(DRAWS, number))
        for draw, (one, mask) in enumerate(
            zip(torch.cat([image, changed[0]]), torch.cat([label, changed[1]]), strict=True)
        ):
            title = f"epoch {draw}" if draw else f"{case}, slice {chosen + 1}"
            tiles.append(Tile(title, one[len(one) // 2].numpy(), mask.numpy(), row_over_column=1.0))
    return draw_contact_sheet(path, tiles, store.classes, columns=DRAWS + 1)
