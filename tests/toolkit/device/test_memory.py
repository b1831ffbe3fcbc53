"""Errors without memory, the peak of a process, and activation checkpointing, which needs less for the same."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from comparison import saved_bytes
from small_trainings import make_trainer
from torch import nn

from attunet.config import ModelConfig
from attunet.device.memory import is_out_of_memory, peak_memory_mb
from attunet.errors import RunError
from attunet.models import build_model
from attunet.store import Store


def test_the_hosts_words_are_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    # Torch's own matrix products
    assert is_out_of_memory(RuntimeError("posix_memalign failed:Cannot allocate memory (12)"))


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_step_without_memory_ends_with_what_to_change(small_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(small_store, "optim.batch_size=8 optim.accumulate_steps=2 model.name=unet")

    def forward(images: torch.Tensor) -> torch.Tensor:
        return torch.empty(2**60)  # the host's own error

    monkeypatch.setattr(trainer.network, "forward", forward)
    advice = (
        "4 slices at once; set a smaller optim.batch_size, more optim.accumulate_steps or "
        "run.activation_checkpointing=true"
    )
    with pytest.raises(RunError, match=f"step 0: the host has not enough memory for {advice}"):
        trainer.step(0)


PEAK = "from attunet.system.environment import peak_resident_mb; print(peak_resident_mb())"


def test_a_child_of_a_large_process_reports_its_own_peak() -> None:
    ballast = np.ones(300_000_000, np.uint8)
    peak = float(subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True).stdout)
    assert 0 < peak < 150
    assert (peak_memory_mb(torch.device("cpu")) or 0) > ballast.nbytes / 1e6


def gradients(network: nn.Module, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients by name, and bytes that autograd keeps between forward and backward."""
    losses: list[torch.Tensor] = []
    kept = saved_bytes(lambda: losses.append(network(images).square().mean()))
    losses[0].backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}, kept


@pytest.mark.parametrize("backend", [None, "aot_eager"])
@pytest.mark.parametrize("name", ["unet", "attention_unet"])
def test_activation_checkpointing_keeps_less_and_computes_the_same(name: str, backend: str | None) -> None:
    torch.manual_seed(0)
    plain = build_model(ModelConfig(name=name, base_width=8, depth=2), 1, 3)
    thrifty = copy.deepcopy(plain)
    thrifty.enable_activation_checkpointing()
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
