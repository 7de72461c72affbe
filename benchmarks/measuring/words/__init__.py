"""What `benchmarks.words` speaks, joins, plays and scores."""
