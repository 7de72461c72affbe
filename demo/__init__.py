"""`python -m demo`: a cluster on this machine, eight simulated devices, and what the cluster made of their speech."""

import edge_sim  # noqa: F401 - before anything imports NumPy: the devices keep it to one thread
