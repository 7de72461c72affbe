"""What several benchmarks share: rivals, noise, bootstrap, reports."""
