"""What the cluster runs, as plain classes: Whisper, text encoders, the emotion network, and their weights."""
