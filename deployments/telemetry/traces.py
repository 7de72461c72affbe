"""OpenTelemetry spans, and the W3C context that ties those of several processes to the client's.

A provider of our own, not Serve's (docs/decisions/0015). Spans hold no text, no key and no id of a device: errors are
named by their type, since their text may hold what somebody said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

TRACE_HEADERS: Final = ("traceparent", "tracestate")
LONGEST_TRACESTATE: Final = 512  # characters that W3C wants passed on; a client's headers may be 100 times as long

_w3c: Final = TraceContextTextMapPropagator()


@cache
def provider(endpoint: str, sampling: float) -> TracerProvider:
    """That of this process: one for each receiver, which exports beside the requests and drops what it cannot send."""
    resource = Resource.create({"service.name": "amser"})
    made = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(sampling)))
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    return made


class Tracing:
    """Makes spans.

    Args:
        endpoint: URL that takes OTLP over HTTP, such as http://collector:4318/v1/traces.
        sampling: share of the requests without a context of their own that are traced.
    """

    def __init__(self, endpoint: str, sampling: float) -> None:
        self.endpoint = endpoint
        self._tracer = provider(endpoint, sampling).get_tracer("amser")

    @contextmanager
    def span(
        self, name: str, kind: SpanKind, parent: Context | None, attributes: Mapping[str, AttributeValue]
    ) -> Iterator[Span]:
        """A span that is the current one inside; None as the parent is the current span of before."""
        with self._tracer.start_as_current_span(
            name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as error:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise

    def batch(
        self, name: str, members: Sequence[SpanContext], started_ns: int, attributes: Mapping[str, AttributeValue]
    ) -> None:
        """A batch was computed until now: each of its requests has a span of it, with links to the others."""
        for member in members:
            parent = trace.set_span_in_context(trace.NonRecordingSpan(member))
            links = [Link(other) for other in members if other is not member]
            self._tracer.start_span(
                name, parent, SpanKind.INTERNAL, attributes, links=links, start_time=started_ns
            ).end()


def context_of(headers: Mapping[str, str]) -> Context | None:
    """The context that `traceparent` and `tracestate` describe; None where there is none, or none that can be read.

    Args:
        headers: by their names in lower case.
    """
    found = {name: headers[name] for name in TRACE_HEADERS if name in headers}
    if len(found.get("tracestate", "")) > LONGEST_TRACESTATE:
        del found["tracestate"]
    context = _w3c.extract(found, Context())
    return context if trace.get_current_span(context).get_span_context().is_valid else None


def headers_of_current() -> dict[str, str]:
    """The current span as `traceparent` and `tracestate`; empty where there is none."""
    headers: dict[str, str] = {}
    _w3c.inject(headers)
    return headers


def trace_id_of(context: Context | None) -> str:
    """Hexadecimal; empty where there is none."""
    found = trace.get_current_span(context or Context()).get_span_context()
    return trace.format_trace_id(found.trace_id) if found.is_valid else ""


def trace_id_of_sampled() -> str:
    """Of the current span, where it is going to be exported."""
    span = sampled_span()
    return trace.format_trace_id(span.trace_id) if span else ""


def sampled_span() -> SpanContext | None:
    """Of the current span, where it is going to be exported."""
    found = trace.get_current_span().get_span_context()
    return found if found.is_valid and found.trace_flags.sampled else None
