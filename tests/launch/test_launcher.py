"""Several processes share the cases, the GPUs and the cores as their launcher divides them."""

import pytest

from attunet.errors import InputError
from attunet.launch import launcher
from attunet.launch.launcher import local_gpu, local_threads, shard_of


@pytest.fixture
def launched(monkeypatch):
    """`launched(function, environment)` is its result in a process with these variables of a launcher."""

    def call(function, environment):
        with monkeypatch.context() as changed:
            for name, value in environment.items():
                changed.setenv(name, value)
            return function()

    return call


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, (1, 4)),
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "5"}, (2, 3)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "4",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "0",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            (2, 3),
        ),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "2"}, (1, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (0, 1)),  # in a batch script, which srun has not started
        ({"RANK": "0"}, (0, 1)),
    ],
)
def test_share_of_the_work_is_read_from_the_launcher(launched, environment, expected):
    assert launched(shard_of, environment) == expected


ARRAY = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"}


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"RANK": "a", "WORLD_SIZE": "2"}, "RANK"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK"),
        ({"RANK": "0", "WORLD_SIZE": "1" + "0" * 5000}, "WORLD_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": "\u0662"}, "WORLD_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE"),
        ({**ARRAY, "SLURM_ARRAY_TASK_STEP": "abc"}, "SLURM_ARRAY_TASK_STEP"),
        ({**ARRAY, "SLURM_ARRAY_TASK_STEP": "0"}, "SLURM_ARRAY_TASK_STEP"),
        ({**ARRAY, "SLURM_ARRAY_TASK_MIN": "2"}, "SLURM_ARRAY_TASK_ID"),
    ],
)
def test_a_share_that_cannot_be_is_an_input_error(launched, environment, name):
    with pytest.raises(InputError, match=f"^{name}: ") as error:
        launched(shard_of, environment)
    assert len(str(error.value)) < 200


def test_each_process_of_a_machine_has_its_own_gpu(launched):
    assert [launched(local_gpu, {}), launched(local_gpu, {"LOCAL_RANK": "3"})] == [0, 3]
    with pytest.raises(InputError, match="LOCAL_RANK"):
        launched(local_gpu, {"LOCAL_RANK": "-1"})


def test_processes_of_a_machine_share_its_cpus(launched, monkeypatch):
    monkeypatch.setattr(launcher, "usable_cores", lambda: 8)
    environments = ({}, {"LOCAL_WORLD_SIZE": "2"}, {"LOCAL_WORLD_SIZE": "9"})
    assert [launched(local_threads, environment) for environment in environments] == [None, 4, 1]
    with pytest.raises(InputError, match="LOCAL_WORLD_SIZE"):
        launched(local_threads, {"LOCAL_WORLD_SIZE": "0"})
