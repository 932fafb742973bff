"""The folders of runs and sweeps on disk, and the files in them. Does not import torch."""
