"""Parts of `benchmarks.emotion`: corpora left out, pairs, inputs left out, and how rows are printed."""
