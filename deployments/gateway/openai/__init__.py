"""OpenAI's routes for speech, so that a client of theirs works with this cluster once its base URL is changed."""
