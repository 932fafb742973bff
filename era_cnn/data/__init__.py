"""Data sets: reading and verifying, batches as tensors, augmentation of whole batches."""
