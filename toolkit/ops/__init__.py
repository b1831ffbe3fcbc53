"""Operations: functions of tensors, with the backend chosen in one place."""

from attunet.ops.attention_gate import BACKENDS, attention_gate

__all__ = ["BACKENDS", "attention_gate"]
