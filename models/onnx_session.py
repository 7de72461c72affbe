"""ONNX Runtime on a CPU, as every model here uses it."""

from __future__ import annotations

import onnxruntime


def cpu_session(graph: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """A graph that is ready to run, from as many threads at once as want to, each on so many threads.

    Its memory is malloc's: ONNX Runtime's own allocator took the most that was ever needed, and never gave it back
    (Whisper base after 30 s of speech: 780 MB in place of 350).
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
