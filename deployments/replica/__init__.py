"""What every replica is built from: batching, deadlines, execution beside the event loop."""
