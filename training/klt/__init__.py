"""Learns the tables of the codec `klt`: `python -m training.klt`."""
