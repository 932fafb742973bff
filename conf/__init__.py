"""What can be run: the YAML groups, importable as `era_cnn.conf` so that they travel with the package."""
