"""How a run is asked for: the only package that knows Hydra."""
