"""Learns the tables of the codec `klt`: `python -m klt_training`."""
