"""Training: the loop, the optimizers and the schedules."""
