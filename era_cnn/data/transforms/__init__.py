"""Transforms of training images by name; importing this package registers them.

Torch is imported when a transform is applied, so that a config can be checked without it.
"""

from era_cnn.data.transforms import colour, crops, erase, geometric, mix, noise, policies  # noqa: F401 - they register
from era_cnn.data.transforms.pipeline import Mix, Pipeline, Transform, make_pipeline

__all__ = ["Mix", "Pipeline", "Transform", "make_pipeline"]
