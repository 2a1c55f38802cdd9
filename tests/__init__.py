"""A package, so that `python -m tests.faults` is this one: a library leaves a package `tests` in site-packages."""
