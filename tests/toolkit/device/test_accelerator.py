"""A training starts with its launcher's variables, or says in one line which of them cannot be."""

import pytest

from attunet.config import RunConfig
from attunet.device.accelerator import make_accelerator
from attunet.errors import InputError


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": "abc"}, "^WORLD_SIZE: must be an integer from 1"),
        ({"WORLD_SIZE": "0"}, "^WORLD_SIZE: must be an integer from 1"),
        ({"LOCAL_RANK": "abc"}, "^LOCAL_RANK: must be an integer from 0"),
        ({"LOCAL_WORLD_SIZE": "0"}, "^LOCAL_WORLD_SIZE: must be an integer from 1"),
        ({"WORLD_SIZE": "2"}, "^environment: .*RANK expected"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "^environment: .*MASTER_ADDR expected"),
        (
            {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "abc"},
            r"^environment: .* \(ACCELERATE_GRADIENT_ACCUMULATION_STEPS\): .*'abc'",
        ),
        ({"ACCELERATE_USE_CPU": "Zz"}, r"^environment: .* \(ACCELERATE_USE_CPU\): .*zz"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "abc"},
            r"^environment: .* \(MASTER_PORT\): .*'abc'",
        ),
        ({"ACCELERATE_DYNAMO_BACKEND": "abc"}, "^environment: .*DynamoBackend"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "^environment: .*Megatron"),
    ],
)
def test_variables_that_cannot_be_are_one_line(
    variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=words) as error:
        make_accelerator(RunConfig(device="cpu"))
    assert "\n" not in str(error.value)
