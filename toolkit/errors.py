"""The two errors that users see as one line; everything else is a bug and keeps its traceback."""


class InputError(ValueError):
    """The input or the call is wrong: one line with what, where, the rule and the value. Exit code 2."""


class RunError(RuntimeError):
    """The work itself failed (a loss that is not finite, a full disk, a provider that died). Exit code 1."""
