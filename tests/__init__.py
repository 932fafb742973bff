"""The tests. On two cores, OpenMP's threads that spin while they wait cost ten times what they compute."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported, here and in every child process
