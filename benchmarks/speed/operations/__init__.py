"""Speed of single operations beside eager and compiled PyTorch and a copy."""
