"""The YAML config groups, importable as `era_cnn.conf` so that they are installed with the package."""
