"""Files, processes and machine facts: atomic writes, worker processes, the environment of a result."""
