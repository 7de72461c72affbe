"""What is known of a request while it runs, and where that goes: metrics, spans, a line of the log.

A context variable holds it, so that neither the pipeline nor the stages hand it on; to a stage in another process goes
`carrier()`, with the call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Protocol

from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode
from ray.serve.context import _serve_request_context  # Serve has no public name for it

from deployments.telemetry import request_log, traces
from deployments.telemetry.metrics import GATEWAY, Instruments, RequestMetrics, batch_metrics, replica_memory
from deployments.telemetry.request_ids import KEY_ID, request_id
from deployments.telemetry.traces import Tracing

Outcome = Literal["whole", "degraded", "refused", "failed", "left"]

SERVER_ERRORS: Final = 500  # from this status on it is our fault
METHODS: Final = ("GET", "HEAD", "POST", "DELETE")
LEFT: Final = 499  # in the log: the client did not wait for a status


class Incoming(Protocol):
    """As much of a request as is read here."""

    @property
    def headers(self) -> Mapping[str, str]: ...


@dataclass(slots=True)
class Work:
    """What a process knows of the request that it works on.

    Attributes:
        request_id: in whatever is said of it.
        metrics: whether they are wanted.
        tracing: makes spans; None where nobody receives any.
    """

    request_id: str
    metrics: bool
    tracing: Tracing | None


@dataclass(slots=True)
class Asked:
    """A stage that the pipeline has asked: milliseconds of computing, and of all else until its answer was there."""

    compute_ms: float | None = None
    queue_ms: float = 0.0


@dataclass(slots=True)
class RequestRecord(Work):
    """The same in the gateway, which knows more.

    Attributes:
        route: its path, one of ours.
        measured: where its figures go.
        started: of time.perf_counter().
        outcome, reason, status: what came of it; the reason is the kind of problem, or what is missing.
        size, codec, seconds: of its body.
        degraded: what the answer had to do without.
        replay: whether its answer is that of an earlier request.
        key_id: of the key that it came with.
        trace_id: of its trace; also where only the client traces.
        stages_ms, queues_ms: by stage.
        unfinished: stages that were given up.
    """

    route: str
    measured: RequestMetrics
    started: float = field(default_factory=time.perf_counter)
    outcome: Outcome = "whole"
    reason: str = ""
    status: int = 200
    size: int | None = None
    codec: str = ""
    seconds: float | None = None
    degraded: tuple[str, ...] = ()
    replay: str = ""
    key_id: str = ""
    trace_id: str = ""
    stages_ms: dict[str, float] = field(default_factory=dict)
    queues_ms: dict[str, float] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)

    def received(self, codec: str, size: int) -> None:
        """Its body holds an utterance."""
        self.codec, self.size = codec, size
        if size:  # Ray's counters do not take 0
            self.measured.body_bytes.inc(size, {"codec": codec})

    def recognized(self, emotion: str | None, uncertain: bool, seconds: float, missing: Sequence[str]) -> None:
        """Its answer was computed. An utterance in which nobody speaks has no emotion."""
        self.seconds = seconds
        self.measured.speech_seconds.inc(seconds, {"codec": self.codec})
        self.measured.emotions.inc(1, {"emotion": emotion or "none", "uncertain": str(uncertain).lower()})
        for each in missing:
            self.measured.degraded.inc(1, {"missing": each})

    def answered(self, missing: Sequence[str], replay: str | None) -> None:
        """Its answer is sent: computed for it, or for an earlier request."""
        self.degraded, self.replay = tuple(missing), replay or ""
        if missing:
            self.outcome, self.reason = "degraded", missing[0]  # without words there is no text either
        elif replay:
            self.reason = "replayed"

    def refused(self, status: int, kind: str) -> None:
        """A problem document of this kind is sent."""
        self.status = status
        self.outcome = "failed" if status >= SERVER_ERRORS else "refused"
        self.reason = kind

    def left(self, when: Literal["body", "answer"]) -> None:
        """The client did not wait until its body was here, or until its answer was."""
        self.outcome, self.reason, self.status = "left", when, LEFT

    def missed_deadline(self) -> None:
        """The stages that were given up last were so because their time was over."""
        for stage in self.unfinished or [GATEWAY]:
            self.measured.deadline_missed.inc(1, {"stage": stage})
        self.unfinished.clear()

    def facts(self) -> dict[str, Any]:
        """As the log has them."""
        return {
            "request_id": self.request_id,
            "trace_id": self.trace_id,
            "route": self.route,
            "outcome": self.outcome,
            "reason": self.reason,
            "status": self.status,
            "ms": round(1000 * (time.perf_counter() - self.started), 1),
            "stages_ms": {stage: round(value, 1) for stage, value in self.stages_ms.items()},
            "queues_ms": {stage: round(value, 1) for stage, value in self.queues_ms.items()},
            "bytes": self.size,
            "codec": self.codec,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "degraded": self.degraded,
            "replay": self.replay,
            "key_id": self.key_id,
        }


_current: Final[ContextVar[Work | None]] = ContextVar("amser_request", default=None)


class Telemetry:
    """Of a replica of the gateway.

    Args:
        metrics: whether Prometheus gets any.
        log: whether each request gets a line.
        tracing: makes spans; None makes none.
    """

    def __init__(self, *, metrics: bool, log: bool, tracing: Tracing | None) -> None:
        self.instruments = Instruments(metrics)
        self._metrics, self._log, self._tracing = metrics, log, tracing
        self._measured = RequestMetrics(self.instruments)
        replica_memory.belongs_to(GATEWAY)
        if log:
            request_log.open_request_log()

    def check(self) -> None:
        """Says how much memory the replica has; its health check comes here."""
        replica_memory.show(GATEWAY)

    @contextmanager
    def request(self, incoming: Incoming, route: str) -> Iterator[RequestRecord]:
        """Around the answering of a request: whoever works on it finds the record, and at the end it is told."""
        record = RequestRecord(
            request_id(incoming.headers), self._metrics, self._tracing, route, self._measured, key_id=_key_id(incoming)
        )
        parent = traces.context_of(incoming.headers)
        with ExitStack() as stack:
            stack.callback(self._tell, record)
            stack.enter_context(_known(record))
            span = stack.enter_context(self._span(record, _method(incoming), parent)) if self._tracing else None
            record.trace_id = traces.trace_id_of(parent) or traces.trace_id_of_sampled()
            try:
                yield record
            except asyncio.CancelledError:
                record.left("answer")
                raise
            except Exception:
                record.refused(500, "internal")
                raise
            finally:
                if span is not None:
                    _describe(span, record)

    def _span(self, record: RequestRecord, method: str, parent: Any) -> Any:
        assert self._tracing is not None
        attributes = {"http.route": record.route, "amser.request_id": record.request_id}
        attributes |= {"http.request.method": method} if method else {}
        return self._tracing.span(f"{method} {record.route}".lstrip(), SpanKind.SERVER, parent, attributes)

    def _tell(self, record: RequestRecord) -> None:
        labels = {"route": record.route, "outcome": record.outcome}
        self._measured.requests.inc(1, {**labels, "reason": record.reason})
        self._measured.request_seconds.observe(time.perf_counter() - record.started, labels)
        if self._log:
            request_log.write(record.facts())


class Wanted(Protocol):
    """As much of `TelemetrySettings` as is read here: the settings of replicas stand above telemetry."""

    @property
    def metrics(self) -> bool: ...

    @property
    def log(self) -> bool: ...

    @property
    def traces(self) -> Any: ...


def telemetry(settings: Wanted) -> Telemetry:
    """As the settings say."""
    wanted = settings.traces
    tracing = Tracing(wanted.endpoint, wanted.sampling) if wanted else None
    return Telemetry(metrics=settings.metrics, log=settings.log, tracing=tracing)


@contextmanager
def asking(stage: str) -> Iterator[Asked]:
    """Around the pipeline's call of a stage; outside of a request it does nothing."""
    record, asked = _current.get(), Asked()
    if not isinstance(record, RequestRecord):
        yield asked
        return
    span = record.tracing.span(stage, SpanKind.CLIENT, None, {}) if record.tracing else nullcontext()
    started = time.perf_counter()
    with span as shown:
        try:
            yield asked
        except (asyncio.CancelledError, TimeoutError):
            record.unfinished.append(stage)
            raise
        if asked.compute_ms is None:
            return
        asked.queue_ms = max(0.0, 1000 * (time.perf_counter() - started) - asked.compute_ms)
        record.stages_ms[stage], record.queues_ms[stage] = asked.compute_ms, asked.queue_ms
        if shown is not None:
            shown.set_attributes({"amser.compute_ms": asked.compute_ms, "amser.queue_ms": asked.queue_ms})
    tags = {"stage": stage}
    record.measured.stage_seconds.observe(asked.compute_ms / 1000, tags)
    record.measured.stage_queue_seconds.observe(asked.queue_ms / 1000, tags)


def missed_deadline() -> None:
    """See `RequestRecord.missed_deadline`, of the request that is worked on."""
    if isinstance(record := _current.get(), RequestRecord):
        record.missed_deadline()


def carrier() -> dict[str, str]:
    """What a stage in another process has to know of the request that is worked on; empty outside of one."""
    work = _current.get()
    if work is None:
        return {}
    known = {"request_id": work.request_id, "metrics": str(int(work.metrics))}
    if work.tracing is not None and traces.sampled_span():
        known |= {"otlp": work.tracing.endpoint, **traces.headers_of_current()}
    return known


@contextmanager
def received(carried: Mapping[str, str], name: str) -> Iterator[None]:
    """Around what a stage does for a call from another process.

    Args:
        carried: what `carrier` made there; empty where the caller works on no request.
        name: of the span.
    """
    if not carried:
        yield
        return
    tracing = Tracing(carried["otlp"], 1.0) if "otlp" in carried else None
    work = Work(carried.get("request_id", ""), carried.get("metrics") == "1", tracing)
    with (
        _known(work),
        tracing.span(name, SpanKind.SERVER, traces.context_of(carried), {}) if tracing else nullcontext(),
    ):
        yield


@dataclass(frozen=True, slots=True)
class BatchMember:
    """A request that waits for a batch, as `note_batch` needs it."""

    work: Work | None
    span: SpanContext | None


def batch_member() -> BatchMember:
    """The request that is worked on."""
    work = _current.get()
    return BatchMember(work, traces.sampled_span() if work and work.tracing else None)


def note_batch(stage: str, members: Sequence[BatchMember], started_ns: int, frames: int | None) -> None:
    """A batch was computed until now.

    Args:
        stage: that computed it.
        members: the requests that it was computed for.
        started_ns: of time.time_ns().
        frames: of all its members; None for a stage that does not read frames.
    """
    works = [member.work for member in members if member.work is not None]
    if any(work.metrics for work in works):
        batch_metrics(True).computed(stage, len(members), frames)
    tracing = next((work.tracing for work in works if work.tracing is not None), None)
    spans = [member.span for member in members if member.span is not None]
    if tracing is not None and spans:
        attributes = {"amser.batch_size": len(members)} | ({} if frames is None else {"amser.batch_frames": frames})
        tracing.batch(f"{stage} batch", spans, started_ns, attributes)


@contextmanager
def _known(work: Work) -> Iterator[None]:
    """The work is the current one, and the lines that Serve's logger writes meanwhile, here and in the stages that are
    called, have the id of its request.
    """
    token = _current.set(work)
    before = _serve_request_context.get()
    serve_token = _serve_request_context.set(replace(before, request_id=work.request_id)) if before else None
    try:
        yield
    finally:
        _current.reset(token)
        if serve_token is not None:
            _serve_request_context.reset(serve_token)


def _method(incoming: Incoming) -> str:
    """One of those that our routes take; empty for another, which a client may choose freely."""
    method = getattr(incoming, "scope", {}).get("method", "")
    return method if method in METHODS else ""


def _key_id(incoming: Incoming) -> str:
    scope = getattr(incoming, "scope", {})
    return str(scope.get("state", {}).get(KEY_ID, ""))


def _describe(span: Span, record: RequestRecord) -> None:
    known = {
        "http.response.status_code": record.status,
        "amser.outcome": record.outcome,
        "amser.reason": record.reason,
        "amser.codec": record.codec,
        "amser.body_bytes": record.size,
        "amser.seconds": record.seconds,
        "amser.replay": record.replay,
    }
    span.set_attributes({name: value for name, value in known.items() if value not in ("", None)})
    if record.outcome == "failed":
        span.set_status(Status(StatusCode.ERROR, record.reason))
