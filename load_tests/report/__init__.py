"""What a run leaves: records, percentiles, plots and the page."""
