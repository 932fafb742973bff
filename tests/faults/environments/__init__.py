"""Odd environments: places, streams, variables, interpreters, checkouts, limits and mounts.

Each is a command in a new interpreter, as a user starts it. After it: no traceback, no hang, an exit code that has a
meaning, one message if it was refused, and then nothing left behind; a run that completes has the weights of the run in
an ordinary environment.
"""

from tests.faults.environments.campaign import ENVIRONMENTS, environments

__all__ = ["ENVIRONMENTS", "environments"]
