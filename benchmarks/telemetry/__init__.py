"""What it costs to see requests from outside."""
