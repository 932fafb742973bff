"""Composes, checks and types configs; the only package that imports Hydra."""

from era_cnn.compose.hydra_versions import check_versions

check_versions()  # before hydra_door imports private names that another version may lack
