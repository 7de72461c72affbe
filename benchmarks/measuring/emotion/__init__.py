"""Parts of `benchmarks.emotion`: corpora left out, pairs, subsets of modalities, and how rows are printed."""
