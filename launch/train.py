"""`attunet train`, and the module that `accelerate launch -m attunet.launch.train` starts in every process."""

import os
from pathlib import Path

import click
from click import option

from attunet.launch.exit_codes import debug_option, leave, run_command
from attunet.launch.options import FOLD, MINUTES, MODEL, PATH, Value, config_options, init_options, pseudonymise_option
from attunet.presets import training_config
from attunet.system.workers import END_WITH_STDIN, end_with_stdin, process_start


@click.command("train", short_help="Train one network.")
@click.argument("store", type=PATH)
@click.argument("run", type=PATH)
@option("--model", type=MODEL, help="The network; over model.name of the config.")
@option("--fold", type=FOLD, required=True, help="The fold whose cases are left out, or all to train on every case.")
@config_options
@option(
    "--resume",
    type=click.Choice(["require", "auto"]),
    is_flag=False,
    flag_value="require",
    callback=lambda context, parameter, resume: resume or "never",
    help="Continue RUN, which must have begun; --resume=auto starts or continues.",
)
@option("--minutes", type=MINUTES, help="The time that the whole training may take, in place of epochs.")
@init_options
@option(
    "--freeze", type=click.Choice(["none", "encoder"]), help="Part of the network that keeps the weights of --init."
)
@pseudonymise_option
@debug_option
def train_command(
    store: Path,
    run: Path,
    model: str | None,
    config_name: str | None,
    settings: tuple[str, ...],
    minutes: float | None,
    init_classes: str,
    freeze: str | None,
    **options: Value,
) -> None:
    """Train one network on STORE, in the folder RUN.

    The [data] section comes from the store. The same command on many processes:
    accelerate launch --config_file launch/configs/multi_gpu.yaml -m attunet.launch.train STORE RUN ...
    """
    if minutes:
        settings = (*settings, f"run.minutes={minutes}")
    if freeze:
        settings = (*settings, f"optim.freeze={freeze}")
    config = training_config(config_name, settings, model)
    from attunet.runs.initial_weights import parse_renamed
    from attunet.training.loop import train

    renamed = parse_renamed(init_classes) if init_classes else None
    train(store, run, config, init_classes=renamed, began=process_start(), **options)


if __name__ == "__main__":
    if os.environ.pop(END_WITH_STDIN, None):
        end_with_stdin()
    leave(run_command(train_command, "python -m attunet.launch.train"))
