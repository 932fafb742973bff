"""Loads trained networks, and lists the experiments."""
