"""`python -m demo`: a cluster on this machine, eight simulated devices, and its answers to their speech."""

import amser.client  # noqa: F401 - before NumPy: it holds OpenBLAS to one thread
