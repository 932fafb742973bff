"""What lies on disk: the folders of runs and sweeps, and each file in them. Imports no torch."""
