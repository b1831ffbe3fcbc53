"""When memory does not suffice: the error names a batch that fits; activation checkpointing needs less for the same gradients."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from attunet.config import ModelConfig, load_config
from attunet.device.accelerator import make_accelerator
from attunet.device.memory import is_out_of_memory, largest_that_fits
from attunet.errors import RunError
from attunet.loading.resident import ResidentLoader
from attunet.models import build_model
from attunet.models.unet import UNet
from attunet.store import Store
from attunet.training.trainer import Trainee

PROGRAM = Path(__file__).with_name("exhaust_memory.py")


def step_in_little_memory(store: Store, batch_size: int, *settings: str) -> str:
    options = ["run.device=cpu", "run.mixed_precision=no", f"optim.batch_size={batch_size}", *settings]
    command = [sys.executable, str(PROGRAM), str(store.path), *options]
    # The limit is on addresses, and every thread that allocates would map 128 MiB of them, however little it needs.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system tells no mapped memory in /proc")
def test_out_of_memory_names_a_batch_that_fits(small_store: Store) -> None:
    said = step_in_little_memory(small_store, 256)
    found = re.fullmatch(
        r"step 0: the host has not enough memory for 256 slices at once; (\d+) fit: set optim\.accumulate_steps=(\d+), "
        r"or optim\.batch_size=(\d+), or run\.activation_checkpointing=true, which needs less for each",
        said,
    )
    assert found, said
    fits, parts, batch_size = map(int, found.groups())
    assert 0 < fits == batch_size < 256
    # Half of what was named: another process has a little more or less in memory than this one.
    assert step_in_little_memory(small_store, max(1, batch_size // 2)) == "it fits"
    assert step_in_little_memory(small_store, 256, f"optim.accumulate_steps={min(256, 2 * parts)}") == "it fits"


def test_the_hosts_words_are_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(RuntimeError("posix_memalign failed:Cannot allocate memory (12)"))  # torch's own matrix products


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))

    def wrong(count: int) -> None:
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        largest_that_fits(wrong, 8)


def test_sizes_are_halved_until_one_fits() -> None:
    def room_for(limit: int) -> list[int]:
        tried = []

        def attempt(count: int) -> None:
            tried.append(count)
            if count > limit:
                raise MemoryError

        return [largest_that_fits(attempt, 24), *tried]

    assert room_for(7) == [6, 12, 6]
    assert room_for(0) == [0, 12, 6, 3, 1]


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        (["optim.batch_size=8"], "2 fit: set optim.accumulate_steps=4, or optim.batch_size=2, "),
        (["optim.batch_size=8", "optim.accumulate_steps=2"], "2 fit: set optim.accumulate_steps=4, or optim.batch_size=4, "),
    ],
)
def test_what_is_advised_is_accepted(small_store: Store, monkeypatch: pytest.MonkeyPatch, settings: list[str], advice: str) -> None:
    config = load_config(None, ["run.device=cpu", "run.mixed_precision=no", "optim.epochs=1", *settings])
    network = build_model(ModelConfig(name="unet", base_width=4, depth=2), 1, 5)
    loader = ResidentLoader(small_store, [case.name for case in small_store.cases], torch.device("cpu"))
    trainee = Trainee(network, loader, 5, config, make_accelerator(config.run))
    forward = network.forward

    def two_at_most(images: torch.Tensor) -> torch.Tensor:
        if len(images) > 2:
            raise MemoryError
        return forward(images)

    monkeypatch.setattr(network, "forward", two_at_most)
    with pytest.raises(RunError, match=re.escape(advice)):
        trainee.step(0)
    for setting in re.findall(r"optim\.\w+=\d+", advice):
        advised = load_config(None, ["run.device=cpu", "run.mixed_precision=no", "optim.epochs=1", *settings, setting])
        Trainee(network, loader, 5, advised, make_accelerator(advised.run)).step(0)


def gradients(network: nn.Module, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients by name, and bytes that autograd keeps between forward and backward."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = network(images).square().mean()
    loss.backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}, sum(kept.values())


@pytest.mark.parametrize("backend", [None, "aot_eager"])
@pytest.mark.parametrize("name", ["unet", "attention_unet"])
def test_activation_checkpointing_keeps_less_and_computes_the_same(name: str, backend: str | None) -> None:
    torch.manual_seed(0)
    plain: UNet = build_model(ModelConfig(name=name, base_width=8, depth=2), 1, 3)
    thrifty = copy.deepcopy(plain)
    thrifty.activation_checkpointing = True
    images = torch.randn(2, 1, 32, 32)
    expected, all_bytes = gradients(plain, images)
    if backend is not None:
        torch.compiler.reset()
        thrifty.compile(backend=backend, fullgraph=True)
    found, fewer_bytes = gradients(thrifty, images)
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-4, atol=1e-6)
    if backend is None:
        assert fewer_bytes < 0.6 * all_bytes
    after, once = thrifty.state_dict(), plain.state_dict()
    for buffer in (n for n in once if "running" in n or "tracked" in n):  # moved once, not again in the backward pass
        torch.testing.assert_close(after[buffer], once[buffer])
