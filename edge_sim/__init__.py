"""Simulated devices: radios, links, batteries, hardware, and the transports that the codecs are compared with."""

import amser.client  # noqa: F401 - before NumPy: it holds OpenBLAS to one thread
