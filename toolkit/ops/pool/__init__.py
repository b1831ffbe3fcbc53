"""The fused backend of max pooling."""
