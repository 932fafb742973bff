"""What a run is asked to be, typed and validated. Knows neither Hydra nor torch."""
