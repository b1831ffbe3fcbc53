"""Operations: functions of tensors, with the backend chosen in one place."""

from attunet.ops.attention_gate import attention_gate
from attunet.ops.max_pool import max_pool
from attunet.ops.norm_relu import batch_norm_relu

__all__ = ["attention_gate", "batch_norm_relu", "max_pool"]
