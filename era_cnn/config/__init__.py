"""The config of a run, typed and validated. Imports neither Hydra nor torch."""
