"""The step as a graph, captured by a recorder of operators that replays them: what Python computed stays frozen."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_trainings import make_trainer, small_config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attunet.config import ResolvedConfig
from attunet.loading.order import Sampling
from attunet.loading.resident import ResidentLoader
from attunet.store import Store
from attunet.training.optimization import make_capturable
from attunet.training.step_graph import WARM_UP_STEPS, Capture, StepGraph, graph_obstacle
from attunet.training.time_plan import undone
from attunet.training.trainer import Trainer

# Operators that read device memory on the host, give results whose size depends on values, or bring host memory to the
# device.
FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "_unique2", "lift_fresh", "equal")


class Recorder(TorchDispatchMode):
    """Runs and records every operator with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple, dict, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func._schema.name.partition("::")[2]
        assert name not in FORBIDDEN, f"{name} inside the step: a CUDA graph cannot capture it"
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        """Runs the recorded operators on the recorded tensors, into the memory that their results had."""
        with torch.no_grad():
            for func, args, kwargs, before in self.calls:
                after = func(*args, **kwargs)
                if func.is_view or func._schema.is_mutable:
                    continue  # the memory is an argument's
                for target, value in zip(tree_leaves(before), tree_leaves(after), strict=True):
                    if (
                        isinstance(target, torch.Tensor)
                        and target.untyped_storage().data_ptr() != value.untyped_storage().data_ptr()
                    ):
                        target.data.copy_(value)


def recording(state: Callable[[], list[torch.Tensor]]) -> Capture:
    """A capture as CUDA's: the captured function changes none of the tensors of `state` until it is replayed."""

    def capture(function: Callable[[], None]) -> Callable[[], object]:
        before = [t.clone() for t in state()]
        recorder = Recorder()
        with recorder:
            function()
        with torch.no_grad():
            for tensor, value in zip(state(), before, strict=True):
                tensor.copy_(value)
        return recorder.replay

    return capture


def config(*settings: str) -> ResolvedConfig:
    return small_config("optim.epochs=3", *settings)


def trainer_of(store: Store, *settings: str, graph: bool) -> Trainer:
    trainer = make_trainer(store, "optim.lr=0.01 optim.warmup_fraction=0.5", *settings)
    make_capturable(trainer.optimizer, trainer.loader.device)  # both round the learning rate to float32
    if graph:
        assert isinstance(trainer.loader, ResidentLoader)
        capture = recording(lambda: tensors_of(trainer))
        trainer._graph = StepGraph(trainer.loader, trainer.augmenter, trainer.config, trainer._train_on, capture)
    return trainer


def tensors_of(trainer: Trainer) -> list[torch.Tensor]:
    """Everything that a step changes."""
    moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
    return [*trainer.network.state_dict().values(), *moments, trainer.losses.sums, trainer.losses.first_bad_step]


STEPS = WARM_UP_STEPS + 4


@pytest.mark.parametrize(
    "setting",
    [
        "optim.weight_decay=0.01",
        "augment.enabled=false",
        "optim.accumulate_steps=3",
        "run.activation_checkpointing=true",
        "optim.grad_clip_norm=0",
        "model.deep_supervision=true",
    ],
)
def test_a_replayed_step_computes_what_an_uncaptured_one_does(small_store: Store, setting: str) -> None:
    """Other slices, augmentation, learning rate and step number reach it in each step, through its buffers alone."""
    captured, plain = (trainer_of(small_store, setting, graph=graph) for graph in (True, False))
    for step in range(STEPS):
        captured.step(step)
        plain.step(step)
        assert captured.read_losses() == plain.read_losses()
    assert captured._graph is not None
    assert captured._graph.is_captured
    captured.close()
    for a, b in ((captured.network, plain.network), (captured.average.network, plain.average.network)):
        torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=0, atol=0)


def test_a_replayed_step_notices_what_is_not_finite(small_store: Store) -> None:
    trainer = trainer_of(small_store, graph=True)
    for step in range(STEPS):
        trainer.step(step)
    trainer.read_losses()
    before = [p.clone() for p in trainer.network.parameters()]
    assert isinstance(trainer.loader, ResidentLoader)
    trainer.loader._images.fill_(torch.nan)
    trainer.step(STEPS)
    trainer.step(STEPS + 1)
    trainer.close()
    with pytest.raises(Exception, match=f"step {STEPS}: loss or gradient is not finite"):
        trainer.read_losses()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))


def test_steps_that_are_undone_leave_no_graph_of_their_tensors(small_store: Store) -> None:
    """Undoing steps gives the optimizer new moments, which a captured step would not know."""
    measured, plain = (trainer_of(small_store, graph=graph) for graph in (True, False))
    with undone(measured):
        for step in range(measured.warm_up_steps + 1):
            measured.step(step)
    assert measured._graph is not None
    assert not measured._graph.is_captured
    for step in range(STEPS):
        measured.step(step)
        plain.step(step)
    measured.close()
    torch.testing.assert_close(measured.network.state_dict(), plain.network.state_dict(), rtol=0, atol=0)


def test_a_training_may_go_on_with_a_graph_where_it_had_none(small_store: Store) -> None:
    """A checkpoint holds the same tensors with a graph and without."""
    captured, plain = (trainer_of(small_store, graph=graph) for graph in (True, False))
    for step in range(STEPS):
        captured.step(step)
        plain.step(step)
    captured.close()
    with_graph, without = captured.state(), plain.state()
    for part, tensors in without.parts.items():
        assert set(tensors) == set(with_graph.parts[part])
        for name, tensor in tensors.items():
            assert with_graph.parts[part][name].dtype == tensor.dtype, name


def test_a_step_that_reads_the_device_cannot_be_captured(small_store: Store) -> None:
    trainer = trainer_of(small_store, graph=True)
    train = trainer._train_on

    def reading(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        assert float(parts[0][0].sum()) != 1e9
        train(parts)

    assert trainer._graph is not None
    trainer._graph._train = reading
    for step in range(WARM_UP_STEPS):
        trainer.step(step)
    with pytest.raises(AssertionError, match="_local_scalar_dense inside the step"):
        trainer.step(WARM_UP_STEPS)
    trainer.close()


def test_why_there_is_no_graph(small_store: Store) -> None:
    cases = [small_store.cases[0].name]
    loader = ResidentLoader(small_store, cases, torch.device("cpu"), Sampling(0, 4))
    assert graph_obstacle(config(), loader, 1) == "the training runs on cpu"
    assert graph_obstacle(config("run.cuda_graph=off"), loader, 1) == "run.cuda_graph is off"
    loader.device = torch.device("cuda")
    assert graph_obstacle(config(), loader, 1) == ""
    assert "processes" in graph_obstacle(config(), loader, 2)
    assert "fp16" in graph_obstacle(config("run.mixed_precision=fp16"), loader, 1)
    loader.tier = "streamed"
    assert "streamed" in graph_obstacle(config(), loader, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("settings", [[], ["optim.accumulate_steps=2"], ["run.activation_checkpointing=true"]], ids=str)
def test_on_a_gpu_the_graph_computes_what_single_launches_do(small_store: Store, settings: list[str]) -> None:
    """Within what two uncaptured trainings differ by, whose kernels may add in another order."""
    losses = {}
    for name, graph in (("captured", "on"), ("first", "off"), ("second", "off")):
        on_gpu = f"run.device=cuda run.mixed_precision=bf16 run.cuda_graph={graph} model.base_width=16"
        trainer = make_trainer(small_store, on_gpu, *settings)
        losses[name] = []
        for step in range(STEPS):
            trainer.step(step)
            losses[name].append(trainer.read_losses().loss)
        assert (trainer._graph is not None and trainer._graph.is_captured) == (graph == "on")
        trainer.close()
    spread = max(abs(a - b) for a, b in zip(losses["first"], losses["second"], strict=True))
    assert losses["captured"] == pytest.approx(losses["first"], abs=max(0.02, 3 * spread))
