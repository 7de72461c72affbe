"""What several benchmarks share: reference systems, noise, bootstrap, reports."""
