"""Whisper taught to decode from the speech alone: what `python -m training.short_context` runs."""
