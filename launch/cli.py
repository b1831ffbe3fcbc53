"""The `attunet` command. Each command imports what it needs when it runs: help is quick, and needs no torch."""

import sys

import click

from attunet.launch.commands.artefact_commands import card, sign, verify, web
from attunet.launch.commands.data_commands import demo, inspect, phantom, prepare
from attunet.launch.commands.model_commands import crossvalidate, export
from attunet.launch.commands.predict_command import predict
from attunet.launch.commands.result_commands import benchmark, evaluate, report
from attunet.launch.commands.serve import serve_command
from attunet.launch.exit_codes import debug_option, run_command
from attunet.launch.train import train_command
from attunet.version import __version__


def main() -> int:
    return run_command(cli, "attunet")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True})
@click.version_option(__version__)
@debug_option
def cli() -> None:
    """U-Net and Attention U-Net for slices of medical volumes: from a folder of scans to an evaluated ONNX file.

    Not a medical device.
    """


for command in (
    *(demo, phantom, prepare, inspect),
    *(train_command, crossvalidate, export, web, card, sign, verify),
    *(evaluate, report, benchmark),
    *(predict, serve_command),
):
    cli.add_command(command)


if __name__ == "__main__":
    sys.exit(main())
