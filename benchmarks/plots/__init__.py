"""Plots of the benchmark tables."""
