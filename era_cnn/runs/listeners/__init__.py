"""Listeners of a run: they show it, save it, write its files and stop it."""
