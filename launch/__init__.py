"""The command line: the `attunet` command, and the script that `accelerate launch` starts."""
