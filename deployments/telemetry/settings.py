"""What can be set of telemetry: `telemetry` in the `args` of serve_config.yaml.

Apart from `deployments.settings`, which takes it in and itself imports what is measured here.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TraceSettings(_Settings):
    """Where spans are sent, in OTLP over HTTP. Headers of the receiver, such as its key, come from the variable
    `OTEL_EXPORTER_OTLP_HEADERS` of every node, which the exporter reads."""

    endpoint: str = Field(pattern=r"^https?://[^\s/@]+(/\S*)?$")
    """Such as `http://collector:4318/v1/traces`."""
    sampling: float = Field(0.01, ge=0, le=1)
    """Share of the requests that are traced. Of those that come with a `traceparent`, its flag decides."""


class TelemetrySettings(_Settings):
    """What can be seen of requests from outside (docs/operators.md). Nothing of it holds what was said."""

    metrics: bool = True
    """Of requests, stages and admission, for Prometheus, at Ray's agent on each node. Memory of replicas, keys, limits
    and bodies on their way are told in any case."""
    log: bool = True
    """A line of JSON for each request, in `requests_….log` beside the logs of Serve's replicas."""
    traces: TraceSettings | None = None
    """OpenTelemetry; None sends none."""
