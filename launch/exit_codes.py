"""Exit codes of commands: 0 done, 1 the work failed, 2 the input or the call is wrong, 128 + signal when stopped."""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from typing import NoReturn

import click

from attunet.errors import InputError, RunError, one_line
from attunet.system.log_lines import forward_log
from attunet.system.plain_text import printable
from attunet.system.stop_signals import UnwindOnSignals

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 128 + signal.SIGINT
# `run_command` reads it from the arguments
debug_option = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
TORCH_LACKS_MEMORY = "DefaultCPUAllocator: can't allocate memory"  # of the CPU; it has no error of its own
EXTRA_OF = (
    {"pydicom": "dicom", "PIL": "images", "openvino": "openvino", "httpx": "client"}
    | dict.fromkeys(("fastapi", "starlette", "uvicorn", "h11", "prometheus_client", "python_multipart"), "serve")
    | dict.fromkeys(
        ("torch", "accelerate", "safetensors", "onnx", "onnxscript", "psutil", "matplotlib", "tqdm"), "train"
    )
)


def run_command(command: click.Command, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run a click command and return its exit code; without `--debug`, errors that users can act on are one line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        # echo flushes: a log that the output goes to shows the progress at once
        with UnwindOnSignals(), forward_log(click.echo):
            code = command.main(args=list(arguments), prog_name=name, standalone_mode=False)
    except SystemExit as stopped:  # by a signal; whoever called this may have to `leave`
        code = stopped.code
    except (Exception, KeyboardInterrupt) as error:
        described = _code_and_line(error)
        if described is None or "--debug" in arguments:
            raise
        code, line = described
        if line:
            rank = os.environ.get("RANK", "0")  # one of several processes says which one it is
            who = "" if rank == "0" else f"rank {rank[:9]}: "
            print(f"error: {printable(' '.join((who + line).split()))}", file=sys.stderr)
    return code if isinstance(code, int) else DONE


def leave(code: int) -> NoReturn:
    """End the process with this exit code. One of several processes exits without finalising the interpreter.

    gloo's threads release the tensors of the last collective at some later time. If the interpreter is being finalised
    by then, Python ends the thread inside a C++ destructor, and the process dies of SIGABRT although its work is done.
    """
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _code_and_line(error: BaseException) -> tuple[int, str] | None:
    """Exit code and line of an error; None for one that is a bug."""
    match error:
        case InputError():
            return WRONG, str(error)
        case RunError():
            return FAILED, str(error)
        case click.ClickException():
            context = error.ctx if isinstance(error, click.UsageError) else None
            hint = f" (see {context.command_path} --help)" if context else ""
            return WRONG, error.format_message().rstrip(".") + hint
        case click.Abort() | KeyboardInterrupt():
            return INTERRUPTED, "interrupted"
        case BrokenPipeError():  # `attunet inspect ... | head`
            _drop_output()
            return 128 + signal.SIGPIPE, ""
        case MemoryError() | RuntimeError() if isinstance(error, MemoryError) or TORCH_LACKS_MEMORY in str(error):
            return FAILED, f"there is too little memory for this: {one_line(error)}"
        case BrokenExecutor():
            return FAILED, "a worker process was killed, as systems short of memory do: call again with fewer cores"
        case OSError() if _is_of_output(error):
            _drop_output()
            return FAILED, f"standard output: {error.strerror or error}"
        case OSError():
            return FAILED, f"{error.filename or 'system'}: {error.strerror or error}"
        case ModuleNotFoundError() if (package := (error.name or "").partition(".")[0]) in EXTRA_OF:
            return WRONG, f"this needs {package}, which is not installed: pip install 'attunet[{EXTRA_OF[package]}]'"
    return None


def _is_of_output(error: OSError) -> bool:
    """True if `click.echo` could not write; the system does not name the output."""
    return traceback.extract_tb(error.__traceback__)[-1].filename == click.utils.__file__


def _drop_output() -> None:
    """Lets what is left of the output go nowhere: the interpreter's end would fail with it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
