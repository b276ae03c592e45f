"""Figures of the real daemon beside baselines measured in the same run: `python -m benchmarks`."""
