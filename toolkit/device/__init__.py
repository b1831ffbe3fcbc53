"""The device that computes: Accelerate's set-up and memory."""
