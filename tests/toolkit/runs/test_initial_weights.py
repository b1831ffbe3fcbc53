"""A training starts from another model: classes by name, other channels and context, parts that keep their weights."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from small_trainings import small_config

from attunet.classes import Classes
from attunet.config import Config, DataConfig, ModelConfig
from attunet.errors import InputError
from attunet.fields import Fields
from attunet.models import SegmentationNetwork, build_model
from attunet.preparation.prepare import prepare
from attunet.runs.initial_weights import InitialWeights, load_initial_weights, parse_renamed, read_initial_weights
from attunet.runs.lineage import Lineage
from attunet.runs.load_run import load_run
from attunet.runs.run_model import open_run
from attunet.runs.run_state import RunState
from attunet.sources.case_files import SourceOptions
from attunet.store import Store
from attunet.training.loop import train
from attunet.training.optimization import freeze
from attunet.volumes.spec import PreprocessSpec

MODEL = ModelConfig(name="attention_unet", base_width=4, depth=2)
NAMES = ["background", "liver", "spleen", "stomach"]
SPEC = PreprocessSpec("LPS", 2, 1.5, (32, 32))


def network(in_channels: int, num_classes: int, seed: int) -> SegmentationNetwork:
    torch.manual_seed(seed)
    return build_model(MODEL, in_channels, num_classes).eval()


def parent(num_channels: int = 1, context: int = 1) -> tuple[SegmentationNetwork, InitialWeights]:
    made = network(num_channels * context, 4, 1)
    return made, InitialWeights(
        "abdomen", "0" * 64, made.state_dict(), {"name": MODEL.name, "depth": MODEL.depth}, 4, num_channels, NAMES
    )


def classes(*names: str) -> Classes:
    return Classes(("background", *names), tuple(range(len(names) + 1)))


def test_classes_are_matched_by_name() -> None:
    old, weights = parent()
    new = network(1, 4, 2)
    fresh = new.head.weight.detach().clone()
    lineage = load_initial_weights(new, weights, SPEC, classes("spleen", "kidney", "hepar"), {"hepar": "liver"})
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(new(x)[:, [0, 1, 3]], old(x)[:, [0, 2, 1]])
    assert torch.equal(new.head.weight[2], fresh[2])
    assert lineage.classes == {"spleen": "spleen", "hepar": "liver"}
    assert lineage.new_classes == ["kidney"]
    assert lineage.fresh == ["head.weight", "head.bias"]
    assert "classes carried: spleen, hepar (from liver); new: kidney" in lineage.describe()


def test_the_same_classes_are_carried_whole() -> None:
    old, weights = parent()
    new = network(1, 4, 2)
    assert load_initial_weights(new, weights, SPEC, classes(*NAMES[1:]), {}).fresh == []
    assert all(torch.equal(value, old.state_dict()[name]) for name, value in new.state_dict().items())


def test_the_same_image_in_more_channels_gives_the_same_logits() -> None:
    old, weights = parent()
    new = network(2, 4, 2)
    spec = dataclasses.replace(SPEC, num_channels=2)
    assert load_initial_weights(new, weights, spec, classes(*NAMES[1:]), {}).channels == "averaged"
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(new(x.expand(-1, 2, -1, -1)), old(x), atol=1e-4, rtol=1e-4)


def test_channels_stay_apart_when_only_the_context_changes() -> None:
    old, weights = parent(num_channels=2)
    new = network(6, 4, 2)
    spec = dataclasses.replace(SPEC, num_channels=2, context_slices=3)
    load_initial_weights(new, weights, spec, classes(*NAMES[1:]), {})
    x = torch.randn(2, 6, 32, 32)
    torch.testing.assert_close(new(x), old(x[:, 2:4]), atol=1e-4, rtol=1e-4)


def named(weights: InitialWeights, *channels: str) -> InitialWeights:
    return dataclasses.replace(weights, channels=list(channels))


def test_channels_are_matched_by_name_in_any_order() -> None:
    old, weights = parent(num_channels=3)
    new = network(2, 4, 2)
    spec = dataclasses.replace(SPEC, num_channels=2)
    weights = named(weights, "T1w", "T2w", "FLAIR")
    lineage = load_initial_weights(new, weights, spec, classes(*NAMES[1:]), {}, ("flair", "T1w"))
    first = next(iter(new.state_dict()))
    expected = old.state_dict()[first][:, [2, 0]]
    assert torch.equal(new.state_dict()[first], expected)
    assert lineage.channels == "matched"
    assert lineage.channel_names == {"flair": "FLAIR", "T1w": "T1w"}
    assert "input channels matched by name: flair, T1w, others averaged" in lineage.describe()
    assert first in lineage.fresh
    assert Lineage.from_json(Fields(lineage.to_json(), "file")) == lineage


@pytest.mark.parametrize("parents", [("t1", "t2"), ()])
def test_channels_without_names_keep_their_order_and_the_log_says_so(parents: tuple[str, ...]) -> None:
    _, weights = parent(num_channels=2)
    spec, own = dataclasses.replace(SPEC, num_channels=2), ("t1", "t2") if parents else ()
    lineage = load_initial_weights(network(2, 4, 2), named(weights, *parents), spec, classes(*NAMES[1:]), {}, own)
    assert lineage.channels == "carried"
    words = "carried by name;" if parents else "carried in their order, since their names are not known;"
    assert f"input channels {words}" in lineage.describe()


def test_channels_of_other_names_share_the_mean_of_the_parents_others() -> None:
    old, weights = parent(num_channels=3)
    new = network(3, 4, 2)
    spec = dataclasses.replace(SPEC, num_channels=3)
    load_initial_weights(new, named(weights, "a", "b", "c"), spec, classes(*NAMES[1:]), {}, ("x", "a", "y"))
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(new(x.expand(-1, 3, -1, -1)), old(x.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)
    first = next(iter(new.state_dict()))
    weight, parents = new.state_dict()[first], old.state_dict()[first]
    torch.testing.assert_close(weight[:, 1], parents[:, 0])
    torch.testing.assert_close(weight[:, 0], (parents[:, 1] + parents[:, 2]) / 2)


def test_a_channel_that_the_parent_did_not_have_starts_at_zero_beside_one_that_it_had() -> None:
    old, weights = parent()
    new = network(2, 4, 2)
    spec = dataclasses.replace(SPEC, num_channels=2)
    load_initial_weights(new, named(weights, "T1w"), spec, classes(*NAMES[1:]), {}, ("T2w", "T1w"))
    x = torch.randn(2, 2, 32, 32)
    torch.testing.assert_close(new(x), old(x[:, 1:]), atol=1e-4, rtol=1e-4)


def test_one_channel_is_carried_whatever_its_name_and_places_count_without_names() -> None:
    def channels(weights: InitialWeights, *names: str) -> str:
        spec, number = dataclasses.replace(SPEC, num_channels=weights.num_channels), weights.num_channels
        return load_initial_weights(network(number, 4, 2), weights, spec, classes(*NAMES[1:]), {}, names).channels

    (_, one), (_, two) = parent(), parent(num_channels=2)
    assert channels(named(one, "T2"), "MRI") == "carried"
    assert channels(named(two, "a", "b")) == "carried"
    assert channels(named(two, "a", "b"), "b", "a") == "matched"


def test_what_cannot_be_a_start_is_one_line(tmp_path: Path) -> None:
    _, weights = parent()
    wide, other = (dataclasses.replace(MODEL, **change) for change in ({"base_width": 8}, {"name": "unet"}))
    hint = rf"its file says that model\.name is 'attention_unet', model\.depth is {MODEL.depth}$"
    for model, names, renamed, message in (
        (wide, NAMES[1:], {}, r"of another width: .*set model\.base_width alike"),
        (other, NAMES[1:], {}, hint),
        (MODEL, ["liver"], {"liver": "hepar"}, "the model has no class 'hepar'; it has liver, spleen, stomach"),
        (MODEL, ["liver"], {"hepar": "liver"}, "the store has no class 'hepar'"),
    ):
        new = build_model(model, 1, 1 + len(names))
        with pytest.raises(InputError, match=message):
            load_initial_weights(new, weights, SPEC, classes(*names), renamed)
    with pytest.raises(InputError, match="must be NEW=PARENT"):
        parse_renamed("liver")
    (tmp_path / "weights.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"must be a run, a checkpoint or a \.safetensors file"):
        read_initial_weights(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"head.weight": lambda t: t[:2]},
        {"head.weight": lambda t: t[:, :1]},
        {"head.bias": lambda t: t.to(torch.int8)},
        {"num_channels": 3},
        {"num_channels": 2**53},
        {"classes": [*NAMES, "kidney"]},
        {"first": lambda t: t * float("nan")},
        {"first": lambda t: t.reshape(-1)},
    ],
    ids=["few rows", "few columns", "type", "channels", "many channels", "classes", "not finite", "shape"],
)
def test_a_file_whose_parts_do_not_fit_is_one_line(change: dict) -> None:
    _, weights = parent()
    (key, value) = next(iter(change.items()))
    if callable(value):
        name = next(iter(weights.tensors)) if key == "first" else key
        weights = dataclasses.replace(weights, tensors={**weights.tensors, name: value(weights.tensors[name])})
    else:
        weights = dataclasses.replace(weights, **change)
    with pytest.raises(InputError, match=r"abdomen: .* must be finite float32"):
        load_initial_weights(network(1, 4, 2), weights, SPEC, classes(*NAMES[1:]), {})


def test_a_pipe_is_no_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="is no regular file"):
        read_initial_weights(tmp_path / "weights.safetensors")


def test_what_is_frozen_stays_and_what_is_carried_learns_slowly(small_store: Store, tmp_path: Path) -> None:
    train(small_store.path, tmp_path / "parent", small_config("optim.epochs=1"), fold=0)
    old = load_run(tmp_path / "parent")
    weights = old.checkpoint / "average.safetensors"
    frozen = "optim.epochs=1 optim.freeze=encoder optim.init_lr_factor=0 optim.ema_decay=0 model.base_width=auto"
    still = small_config(frozen)
    renamed = {"liver": "spleen", "spleen": "liver"}
    train(small_store.path, tmp_path / "child", still, fold=0, init=weights, init_classes=renamed)
    child = load_run(tmp_path / "child")
    assert child.config.model.base_width == 4  # the parent's
    lineage = child.lineage
    assert lineage is not None
    assert lineage.classes["liver"] == "spleen"
    assert read_initial_weights(weights).sha256 == lineage.sha256
    before, after = old.network.state_dict(), child.network.state_dict()
    for name, value in after.items():
        if name.startswith("encoder.") or not (name.startswith("head.") or "running" in name or "tracked" in name):
            assert torch.equal(value, before[name]), name
    assert not torch.equal(after["head.weight"][0], before["head.weight"][0])


def test_what_the_parent_has_seen_is_seen_for_every_generation(
    small_store: Store, tmp_path: Path, log_lines: list[str]
) -> None:
    config = small_config("optim.epochs=0.2 model.depth=2")
    left_out = [set(small_store.split(fold)[1]) for fold in range(3)]
    train(small_store.path, tmp_path / "parent", config, fold=0)
    parent = load_run(tmp_path / "parent")
    assert set(read_initial_weights(parent.checkpoint / "average.safetensors").seen or ()) == {
        *parent.training_cases.values(),
        *parent.training_voxels,
    }
    log_lines.clear()
    train(small_store.path, tmp_path / "child", config, fold=1, init=tmp_path / "parent")
    names = ", ".join(case for case in small_store.split(1)[1])
    assert f"warning: parent was trained on {names}, or on their patients; they count as seen" in log_lines
    assert not any("Dice" in line for line in log_lines)
    train(small_store.path, tmp_path / "child", config, fold=1, resume="require")
    child = open_run(tmp_path / "child")
    assert load_run(tmp_path / "child").held_out == []
    assert small_store.seen_cases([*child.training_cases.values(), *child.training_voxels]) == set.union(*left_out)
    train(small_store.path, tmp_path / "grandchild", config, fold=0, init=tmp_path / "child")
    assert load_run(tmp_path / "grandchild").held_out == []  # the child alone has seen the cases of fold 0


def test_a_scan_is_known_among_other_channels(tmp_path: Path, write_case: Callable[..., tuple[Path, Path]]) -> None:
    """Also where each channel has its file; an atlas, which more than three patients have, tells none of them."""
    for number in (1, 2, 3, 4):
        image, mask = write_case(tmp_path / "cases", f"p{number}", seed=number)
        folder = tmp_path / f"source/p{number}"
        folder.mkdir(parents=True)
        shutil.copy(mask, folder / "seg.nii.gz")
        shutil.copy(image, folder / "t1.nii.gz")
        scan = nib.load(image)
        for name, voxels in (("flair", scan.get_fdata()[::-1]), ("atlas", np.indices(scan.shape)[0]), ("empty", 0)):
            other = nib.Nifti1Image(np.full(scan.shape, 0.0) + voxels, scan.affine)
            nib.save(other, folder / f"{name}.nii.gz")

    def prepared(*images: str) -> Store:
        store = tmp_path / "-".join(images)
        return prepare(tmp_path / "source", store, DataConfig(size=32), options=SourceOptions(images=images), folds=2)

    def seen(parent: Store, child: Store) -> set[str]:
        state = RunState.at_start(parent, ["p1"], [], 0, Config().resolve(base_width=4, epochs=1, batch_size=2))
        return child.seen_cases(state.seen_hashes)

    one, both, others = prepared("t1"), prepared("t1", "flair", "atlas"), prepared("flair", "atlas", "empty")
    assert [seen(parent, child) for parent in (one, both, others) for child in (one, both, others)] == [
        *({"p1"}, {"p1"}, set()),
        *({"p1"}, {"p1"}, {"p1"}),
        *(set(), {"p1"}, {"p1"}),
    ]


def test_a_patient_who_is_there_twice_with_another_second_channel_is_one(
    tmp_path: Path, write_case: Callable[..., tuple[Path, Path]]
) -> None:
    for number, of in enumerate((1, 2, 3, 4, 1)):
        folder = tmp_path / f"source/p{number}"
        folder.mkdir(parents=True)
        for name, seed in (("t1", of), ("flair", 10 + number)):
            image, mask = write_case(tmp_path / f"cases-{name}", f"p{number}", seed=seed)
            shutil.copy(image, folder / f"{name}.nii.gz")
        shutil.copy(mask, folder / "seg.nii.gz")

    def prepared(*images: str) -> Store:
        options = SourceOptions(images=images)
        return prepare(tmp_path / "source", tmp_path / "-".join(images), DataConfig(size=32), options=options, folds=4)

    one, both = prepared("t1"), prepared("t1", "flair")
    assert [(finding.case, finding.rule) for finding in both.findings if finding.rule == "duplicate"] == [
        ("p4", "duplicate")
    ]
    assert any({"p0", "p4"} <= set(both.split(fold)[1]) for fold in range(both.num_folds))
    state = RunState.at_start(one, ["p0"], [], 0, Config().resolve(base_width=4, epochs=1, batch_size=2))
    assert both.seen_cases(state.seen_hashes) == {"p0", "p4"}


def test_what_the_parent_has_not_seen_stays_left_out(small_store: Store, tmp_path: Path, log_lines: list[str]) -> None:
    config = small_config("optim.epochs=0.2 model.depth=2")
    train(small_store.path, tmp_path / "parent", config, fold=0)
    train(small_store.path, tmp_path / "child", config, fold=0, init=tmp_path / "parent")
    assert load_run(tmp_path / "child").held_out == small_store.split(0)[1]
    assert not any("was trained on" in line for line in log_lines)


def test_a_file_that_does_not_know_its_cases_is_named(small_store: Store, tmp_path: Path, log_lines: list[str]) -> None:
    config = small_config("optim.epochs=0.2 model.depth=2")
    train(small_store.path, tmp_path / "parent", config, fold=0)
    with safe_open(load_run(tmp_path / "parent").checkpoint / "average.safetensors", "pt") as file:
        about = json.loads(file.metadata()["attunet"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    del about["seen"]
    save_file(tensors, tmp_path / "given.safetensors", {"attunet": json.dumps(about)})
    train(small_store.path, tmp_path / "child", config, fold=1, init=tmp_path / "given.safetensors")
    assert any("it is not known which cases given.safetensors was trained on" in line for line in log_lines)


def test_what_is_not_the_parents_is_trained_in_a_frozen_encoder() -> None:
    """A new channel beside a matched one starts at zero in the first convolution, and would stay there."""
    made = network(2, 4, 1)
    first = next(name for name, _ in made.named_parameters())
    carried = [name for name, _ in made.named_parameters() if name != first]
    assert len(freeze(made, "encoder", carried)) == 1
    trained = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert first.startswith("encoder.")
    assert {name for name in trained if name.startswith("encoder.")} == {first}
    made.train()
    made(torch.randn(2, 2, 32, 32)).square().mean().backward()
    assert made.get_parameter(first).grad is not None


def test_nothing_is_frozen_without_a_parent(small_store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"optim\.freeze: needs weights to keep \(--init\), got encoder"):
        train(small_store.path, tmp_path / "run", small_config("optim.epochs=1 optim.freeze=encoder"), fold=0)


def test_a_parent_that_is_the_current_folder_has_a_name(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one, no checkpoint of the training that starts from it could be read."""
    config = small_config("optim.epochs=0.2 model.depth=2")
    train(small_store.path, tmp_path / "parent", config, fold=0)
    monkeypatch.chdir(tmp_path / "parent")
    assert load_run(Path()).name == "parent"
    train(small_store.path, tmp_path / "child", config, fold=0, init=Path())
    lineage = load_run(tmp_path / "child").lineage
    assert lineage is not None
    assert lineage.parent == "parent"
