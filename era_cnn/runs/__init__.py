"""Carries out runs: starts, trains, saves, resumes and replays them."""
