"""Programs of a measurement that run in processes of their own."""

import subprocess
from collections.abc import Sequence

import pytest


@pytest.fixture
def forked_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs need not import PyTorch each; those of a launcher do."""
    from forked import ForkedProgram

    popen = subprocess.Popen

    def start(command: Sequence[str], **options: object) -> "ForkedProgram | subprocess.Popen[str]":
        if "-m" not in command or "torch.distributed.run" in command:
            return popen(command, **options)  # type: ignore[call-overload,no-any-return]
        return ForkedProgram(command[command.index("-m") + 1 :])

    monkeypatch.setattr(subprocess, "Popen", start)
