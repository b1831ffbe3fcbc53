"""The `attunet` command. Each command imports what it needs when it runs,
so that help is quick and the base install needs no torch.
"""

import sys

import click

from attunet.launch.commands.data_commands import demo, inspect, phantom, prepare
from attunet.launch.commands.model_commands import card, crossvalidate, export, sign, verify, web
from attunet.launch.commands.predict_command import predict
from attunet.launch.commands.result_commands import benchmark, evaluate, report
from attunet.launch.commands.serve import serve_command
from attunet.launch.exit_codes import debug_option, run_command
from attunet.launch.train import train_command
from attunet.version import __version__


def main() -> int:
    return run_command(cli, "attunet")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
@debug_option
def cli() -> None:
    """U-Net and Attention U-Net for slices of medical volumes: from a folder of scans to an evaluated ONNX file.

    Not a medical device.
    """


DATA = (demo, phantom, prepare, inspect)
MODELS = (train_command, crossvalidate, export, web, card, sign, verify)
RESULTS = (evaluate, report, benchmark)
USE = (predict, serve_command)
for command in (*DATA, *MODELS, *RESULTS, *USE):
    cli.add_command(command)


if __name__ == "__main__":
    sys.exit(main())
