"""Data sets: reads and verifies them, makes batches, and augments whole batches."""
