"""Use of trained networks and of the catalogue of experiments."""
