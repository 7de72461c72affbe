"""How fast long recordings are answered, and in what memory: `python -m benchmarks.recordings`."""
