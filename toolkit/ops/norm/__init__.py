"""The fused backend of batch norm with ReLU."""
