"""`WS /v1/stream`: words and emotion while somebody speaks (docs/stream.md is the protocol)."""
