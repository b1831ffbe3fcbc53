"""Slices streamed from the store: the resident tier's pixels, from any step on, for any number of processes,
in constant memory.
"""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from small_trainings import small_config

from attunet.device.memory import memory_budget
from attunet.errors import RunError
from attunet.loading.choose import choose_tier, make_loader
from attunet.loading.order import Sampling
from attunet.loading.resident import ResidentLoader
from attunet.loading.streamed import StreamedLoader
from attunet.manifest import CASES, IMAGE, LABEL
from attunet.store import Store
from attunet.volumes.spec import Preprocessing

CPU = torch.device("cpu")


def made_store(like: Store, folder: Path, *, lengths: list[int], size: tuple[int, int], context: int = 1) -> Store:
    """A store of random slices of any size, as `prepare` writes them."""
    rng, cases = np.random.default_rng(0), []
    spec = dataclasses.replace(like.spec, size=size, context_slices=context)
    for number, length in enumerate(lengths):
        case = dataclasses.replace(like.cases[0], name=f"case-{number}", folder=f"case-{number}", num_slices=length)
        (folder / CASES / case.name).mkdir(parents=True)
        np.save(folder / CASES / case.name / IMAGE, rng.normal(size=(length, 1, *size)).astype(np.float16))
        np.save(folder / CASES / case.name / LABEL, rng.integers(0, 5, (length, *size), dtype=np.uint8))
        cases.append(case)
    return dataclasses.replace(like, path=folder, preprocessing=Preprocessing(spec), cases=tuple(cases))


def names(store: Store) -> list[str]:
    return [case.name for case in store.cases]


def streamed(store: Store, batch_size: int, rank: int = 0, world: int = 1) -> StreamedLoader:
    return StreamedLoader(store, names(store), CPU, Sampling(7, batch_size, rank, world), piece=3, window=4)


@pytest.fixture(scope="module")
def store(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return made_store(
        small_store, tmp_path_factory.mktemp("store"), lengths=[5, 11, 1, 20, 8], size=(16, 32), context=3
    )


def test_pixels_are_the_resident_tiers(store: Store) -> None:
    resident, loader = ResidentLoader(store, names(store), CPU, Sampling()), streamed(store, 8)
    seen = []
    for step in range(12):  # two epochs and more, over many windows
        batch = loader.take(step)
        images, labels = resident.gather(torch.from_numpy(batch.samples))
        assert torch.equal(batch.images, images)
        assert torch.equal(batch.labels, labels)
        seen += batch.samples.tolist()
    assert sorted(seen[:45]) == sorted(seen[45:90]) == list(range(45))
    image = store.image("case-3")
    assert np.array_equal(resident.gather(torch.tensor([17]))[0][0].numpy(), image[[0, 0, 1], 0].astype(np.float32))
    loader.close()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_any_number_of_processes_and_any_step_to_begin_with(store: Store, world: int) -> None:
    loader = streamed(store, 7)
    whole = [loader.take(step) for step in range(14)]
    loader.close()
    for begin in (0, 5, 6, 13):
        shares = [streamed(store, 7, rank, world) for rank in range(world)]
        for step in range(begin, 14):
            parts = [share.take(step) for share in shares]
            samples = np.concatenate([part.samples for part in parts])
            order = [samples.tolist().index(s) for s in whole[step].samples] if len(set(samples)) == 7 else None
            assert sorted(samples) == sorted(whole[step].samples)
            if order is not None:
                assert torch.equal(torch.cat([part.images for part in parts])[order], whole[step].images)
        for share in shares:
            share.close()


def test_resuming_reads_no_more_than_the_window_it_begins_in(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    loader, read = streamed(store, 4), []
    fill = loader._read
    monkeypatch.setattr(loader, "_read", lambda buffer, samples: (read.append(len(samples)), fill(buffer, samples)))
    loader.take(10)  # position 40 of 45
    loader.close()
    assert read[0] <= 5


def test_what_goes_wrong_in_the_reader_is_raised_in_the_step(small_store: Store, tmp_path: Path) -> None:
    store = made_store(small_store, tmp_path, lengths=[20, 20, 20], size=(16, 16))
    (tmp_path / CASES / "case-1" / IMAGE).write_bytes(b"\x93NUMPY")
    loader = streamed(store, 4)

    def epoch() -> None:
        for step in range(15):
            loader.take(step)

    for _ in range(2):
        with pytest.raises(RunError, match=r"the slices can no longer be read: .*case-1.image\.npy"):
            epoch()
    loader.close()


def resident_megabytes() -> float:
    return psutil.Process().memory_info().rss / 1e6


def test_memory_does_not_grow_with_what_was_read(small_store: Store, tmp_path: Path) -> None:
    store = made_store(small_store, tmp_path, lengths=[48] * 12, size=(160, 160))
    megabytes = 12 * 48 * 160 * 160 * 3 / 1e6  # 44
    loader = StreamedLoader(store, names(store), CPU, Sampling(0, 8), piece=4, window=4)
    for step in range(8):
        loader.take(step)
    before = resident_megabytes()
    for step in range(8, 150):
        loader.take(step)
    loader.close()
    assert resident_megabytes() - before < 0.3 * megabytes


def test_the_budget_chooses_the_tier(small_store: Store, tmp_path: Path) -> None:
    store = made_store(small_store, tmp_path, lengths=[20], size=(16, 16))
    assert choose_tier(store, names(store), 20 * 16 * 16 * 3) == "resident"
    assert choose_tier(store, names(store), 20 * 16 * 16 * 3 - 1) == "streamed"
    assert memory_budget(CPU, 2.5, 1) == 2_500_000_000
    assert memory_budget(CPU, "auto", 1) >= memory_budget(CPU, "auto", 4) > 0


@pytest.mark.parametrize(("gigabytes", "tier"), [("auto", "resident"), (0.0, "streamed")])
def test_a_training_keeps_the_tier_that_it_began_with(small_store: Store, gigabytes: Any, tier: str) -> None:
    alone: Any = SimpleNamespace(process_index=0, num_processes=1, device=CPU)
    config = small_config(f"run.resident_gb={gigabytes}")
    assert make_loader(small_store, names(small_store), alone, config).tier == tier
    other = small_config("run.resident_gb=0" if tier == "resident" else "run.resident_gb=auto")
    assert make_loader(small_store, names(small_store), alone, other, tier=tier).tier == tier
