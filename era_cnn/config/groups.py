"""The config groups whose options are entries of a registry: stated here, where nothing has to be imported for them."""

KINDS = {
    "data": "dataset",
    "augmentation": "transform",
    "optimizer": "optimizer",
    "scheduler": "scheduler",
    "logger": "logger",
    "hydra/launcher": "launcher",
}
"""The kind of the entries of each group."""

LISTED = ("augmentation", "logger")
"""The groups of which several options can be chosen, as a list: each has its name as its key."""
