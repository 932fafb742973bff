"""Listeners of a run: what people see, what is saved, what is written."""
