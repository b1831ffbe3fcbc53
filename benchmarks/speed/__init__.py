"""Speed benchmarks, each a program of its own."""
