"""Several processes in one training: heartbeat, signals, logs."""
