"""Reproducible, Hydra-configured experiments with small image classifiers."""

__version__ = "0.1.0"
