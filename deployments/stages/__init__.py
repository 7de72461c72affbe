"""One thin Ray Serve deployment for each model, and what assembles them from the settings."""
