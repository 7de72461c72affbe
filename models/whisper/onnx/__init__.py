"""Whisper's networks as ONNX graphs, and the engine that runs them on a CPU."""
