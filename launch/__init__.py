"""The front door: the `attunet` command, and the script that `accelerate launch` starts."""
