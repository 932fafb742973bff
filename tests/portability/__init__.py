"""Golden digests: what short trainings came to on each processor that was tried. `python -m tests.portability` adds one."""
