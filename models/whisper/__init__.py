"""Whisper: the recogniser, its engines, and the voice encoder on its first layers."""
