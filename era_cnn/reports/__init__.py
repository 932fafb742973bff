"""Tables of runs and sweeps, made from their folders alone."""
