"""Runs: the story of one, its folder and result, and what stands over several."""
