"""From words to composed, checked and typed configs; the only package that knows Hydra."""

from era_cnn.compose.hydra_versions import check_versions

check_versions()  # before hydra_door imports names that another Hydra may not have
