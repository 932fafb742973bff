"""Sweeps: plans many runs, carries them out with any launcher, and resumes them."""
