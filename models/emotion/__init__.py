"""The emotion network: what it reads, its layers, checkpoints, and the classifier that answers."""
