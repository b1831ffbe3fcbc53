"""Several processes in one training: heartbeat, logs."""
