"""The trace that a request belongs to, for the cluster: spans of both sides then form one tree."""

from __future__ import annotations


def trace_headers() -> dict[str, str]:
    """The current OpenTelemetry span as W3C's `traceparent` and `tracestate`.

    Empty outside of a span, and where OpenTelemetry is not installed, which a device does not need.
    """
    try:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        return {}
    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return headers
