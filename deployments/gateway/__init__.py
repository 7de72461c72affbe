"""The HTTP side: routes, admission control, request preferences, problem documents, audio decoding."""
