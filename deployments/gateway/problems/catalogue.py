"""Every kind of problem: what it means, what to do, whether trying again helps.

The gateway serves this at `/problems`, OpenAPI lists it, and docs/problems.md is written from it:

    python -m deployments.gateway.problems.pages > docs/problems.md
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

PAGES: Final = "/problems"  # on the gateway: where the `type` of a problem leads

NO: Final = "no"
CHANGED: Final = "once the request is changed"
LATER: Final = "yes, after Retry-After"
AT_ONCE: Final = "yes"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem.

    Attributes:
        slug: end of its `type`.
        status: HTTP status.
        title: a few words, the same for every problem of the kind.
        meaning: what has happened.
        remedy: what to do about it.
        again: whether the same request may succeed.
        closes: the connection is closed, since the rest of the request is not read.
    """

    slug: str
    status: HTTPStatus
    title: str
    meaning: str
    remedy: str
    again: str = CHANGED
    closes: bool = False

    @property
    def uri(self) -> str:
        """The `type`: relative, so that it leads to the page of whichever gateway answered."""
        return f"{PAGES}/{self.slug}"


_S: Final = HTTPStatus
KINDS: Final[dict[str, Kind]] = {
    kind.slug: kind
    for kind in (
        Kind("malformed", _S.BAD_REQUEST, "Malformed envelope",
             "The envelope is cut off or corrupt: its length, its checksum or its fields are wrong.",
             "Send the bytes as they were encoded; encode the utterance again if they are damaged."),
        Kind("damaged-audio", _S.BAD_REQUEST, "Damaged audio",
             "Nothing of the audio file can be decoded: its head is cut off or damaged. Where a part of a file can be "
             "decoded, it is answered, with a warning.", "Send the whole file, or one that plays."),
        Kind("empty-body", _S.BAD_REQUEST, "Nothing in the body",
             "The body, or the file in its form, has no bytes.",
             "Send an audio file, as the body or as a part of a form."),
        Kind("bad-form", _S.BAD_REQUEST, "Unreadable form",
             "The content type is `multipart/form-data`, and the body is no such form, or has more parts or longer "
             "fields than are read.", "Send one file, and leave it to the HTTP client to write form and content type."),
        Kind("no-file", _S.BAD_REQUEST, "No file in the form",
             "None of the parts of the form has a file name.", "Send the recording as a file, as `curl -F file=@…` "
             "does."),
        Kind("bad-encoding", _S.BAD_REQUEST, "Damaged compression",
             "The body is no whole gzip stream, though its Content-Encoding says so.",
             "Compress the body again, or send it without Content-Encoding."),
        Kind("bad-preference", _S.BAD_REQUEST, "Unreadable preference",
             "A header that says what is wanted, such as Amser-Deadline-Ms, cannot be read.",
             "Correct the header or leave it out. The utterance itself may be fine."),
        Kind("bad-parameter", _S.BAD_REQUEST, "Parameter missing or not honoured",
             "A field of the form is missing, cannot be read, or asks for what this cluster does not do; `parameter` "
             "names it.",
             "Leave the field out, or give it a value that `limit` names. The recording itself may be fine."),
        Kind("bad-message", _S.BAD_REQUEST, "Unreadable message",
             "A message on a stream is none of the protocol's, or comes where it does not belong.",
             "Send what docs/stream.md says; `limit` has what was expected."),
        Kind("bad-http", _S.BAD_REQUEST, "Not an HTTP request",
             "The bytes on the connection are no HTTP/1.1 request.", "Use an HTTP client.", closes=True),
        Kind("unauthorized", _S.UNAUTHORIZED, "No valid key",
             "The request has no key, or one that is unknown, expired or revoked.",
             "Send a valid key (`Authorization: Bearer …`)."),
        Kind("forbidden", _S.FORBIDDEN, "Not allowed with this key",
             "The key is valid and does not open this route.", "Use a key with the scope that the route needs."),
        Kind("host-not-allowed", _S.MISDIRECTED_REQUEST, "Unknown host",
             "The Host header names none of the hosts that this cluster serves.",
             "Use the cluster's own name; its operator sets which are known."),
        Kind("not-found", _S.NOT_FOUND, "No such route",
             "The cluster has nothing under this path.", "See /docs for the routes."),
        Kind("unknown-model", _S.NOT_FOUND, "No such model",
             "The request names a model that this cluster does not have.",
             "Name one of `limit`; `GET /v1/models` lists them."),
        Kind("method-not-allowed", _S.METHOD_NOT_ALLOWED, "Method not allowed",
             "The route exists and does not take this method.", "Use one that the Allow header names."),
        Kind("head-too-slow", _S.REQUEST_TIMEOUT, "Headers too slow",
             "The request line and headers were not here in time.",
             "Send them at once; they fit into a few packets.", AT_ONCE, closes=True),
        Kind("body-too-slow", _S.REQUEST_TIMEOUT, "Body too slow",
             "The body paused for too long, or came more slowly than the pace that is asked for.",
             "Send fewer bytes (an envelope in place of audio, a coarser step) or use a faster link. Over the same "
             "link the same body fails again.", closes=True),
        Kind("too-large", _S.REQUEST_ENTITY_TOO_LARGE, "Too many bytes",
             "The body has more bytes than the route takes.", "Send fewer: shorten or compress the utterance."),
        Kind("too-long", _S.REQUEST_ENTITY_TOO_LARGE, "Too long an utterance",
             "The utterance lasts longer than the recogniser hears at once.", "Cut it where somebody pauses."),
        Kind("unsupported-media-type", _S.UNSUPPORTED_MEDIA_TYPE, "Unknown content type",
             "The route does not take bodies of this content type.",
             "Send the content type that `limit` names.", CHANGED),
        Kind("unsupported-envelope", _S.UNSUPPORTED_MEDIA_TYPE, "Unknown envelope",
             "The body is no envelope, or has a version, a codec or a profile that this cluster does not know.",
             "Encode with what `limit` names, or update the cluster."),
        Kind("unsupported-encoding", _S.UNSUPPORTED_MEDIA_TYPE, "Unknown content encoding",
             "The body is compressed in a way that the route does not undo.", "Compress it as `limit` says, or not."),
        Kind("unsupported-audio", _S.UNSUPPORTED_MEDIA_TYPE, "Unknown audio format",
             "The file is none of the audio formats that are read; its first bytes tell.",
             "Convert it to one that `limit` names."),
        Kind("unsupported-codec", _S.UNSUPPORTED_MEDIA_TYPE, "Unknown codec",
             "The format of the file is read, the codec in it is not.", "Convert it to a codec that `limit` names."),
        Kind("unusable", _S.UNPROCESSABLE_ENTITY, "Unusable speech",
             "The request is well-formed, but its speech cannot be used: too short, not finite, too high a rank, a "
             "sample rate or channels out of range, or a file that the decoder breaks down on.",
             "Send speech within what `limit` names."),
        Kind("no-sound", _S.UNPROCESSABLE_ENTITY, "No sound in the file",
             "The file has pictures or text, and no sound track.", "Send a file in which something can be heard."),
        Kind("too-costly", _S.UNPROCESSABLE_ENTITY, "Too costly to decode",
             "Decoding the file takes more memory or time than its sound is worth.",
             "Convert it: one track, with the channels and the rate that speech needs."),
        Kind("unknown-language", _S.UNPROCESSABLE_ENTITY, "Unknown language",
             "The recogniser does not know the language that the request names.",
             "Name one of `limit`, or none to have it detected. The speech itself may be fine."),
        Kind("unknown-emotions", _S.UNPROCESSABLE_ENTITY, "Unknown emotions",
             "The parameter `emotions` names classes that the network does not know, one twice, or fewer than two.",
             "Name two or more of `limit`. The speech itself may be fine."),
        Kind("bad-webhook", _S.UNPROCESSABLE_ENTITY, "Webhook refused",
             "Messages cannot be sent to the address that the parameter `webhook` names, or this cluster sends none.",
             "Name a public https address, or none and ask for the job. The recording itself may be fine."),
        Kind("jobs-full", _S.TOO_MANY_REQUESTS, "Too many jobs",
             "As many jobs that have not ended are kept, for this client or for all, as there may be.",
             "Wait until one has ended, or cancel one (`DELETE /v1/jobs/{id}`).", LATER),
        Kind("store-unavailable", _S.SERVICE_UNAVAILABLE, "Store not available",
             "The store that keeps jobs does not answer at the moment.", "Wait for Retry-After.", LATER),
        Kind("overloaded", _S.TOO_MANY_REQUESTS, "No time for an answer",
             "With the requests under way, an answer would not be ready by the deadline.",
             "Wait for Retry-After, ask for more time, or take what can be answered (without `handling=strict`).",
             LATER),
        Kind("share-used", _S.TOO_MANY_REQUESTS, "Share used up",
             "This client has its share of the work under way, and others wait.",
             "Wait for Retry-After; send fewer requests at once.", LATER),
        Kind("queue-full", _S.TOO_MANY_REQUESTS, "Queue full",
             "As many requests are under way as the cluster keeps.", "Wait for Retry-After.", LATER),
        Kind("too-many-bodies", _S.TOO_MANY_REQUESTS, "Too many bodies on their way",
             "More bodies are on their way, from this client or in all, than are read at once, and this one was the "
             "slowest.",
             "Wait for Retry-After; send fewer at once, or faster.", LATER, closes=True),
        Kind("too-many-sockets", _S.TOO_MANY_REQUESTS, "Too many streams",
             "This client, or all together, have as many streams open as a replica keeps.",
             "Wait for Retry-After; close streams on which nobody speaks.", LATER),
        Kind("limit-requests", _S.TOO_MANY_REQUESTS, "Limit of requests reached",
             "The key or the device has had the requests that it may have in this time.",
             "Wait for Retry-After.", LATER),
        Kind("limit-concurrency", _S.TOO_MANY_REQUESTS, "Limit of requests at once reached",
             "The key or the device has as many requests under way as it may have.",
             "Wait for an answer before the next request.", LATER),
        Kind("limit-bytes", _S.TOO_MANY_REQUESTS, "Limit of bytes reached",
             "The key or the device has sent the bytes that it may send in this time.", "Wait for Retry-After.", LATER),
        Kind("limit-speech", _S.TOO_MANY_REQUESTS, "Limit of speech reached",
             "The key or the device has had the seconds of speech that it may have in this time.",
             "Wait for Retry-After.", LATER),
        Kind("head-too-large", _S.REQUEST_HEADER_FIELDS_TOO_LARGE, "Headers too large",
             "The request line and headers have too many bytes, or there are too many headers.",
             "Send fewer headers, or shorter ones.", closes=True),
        Kind("internal", _S.INTERNAL_SERVER_ERROR, "Failure of the cluster",
             "The cluster failed; its log has the reason under `request_id`.",
             "Tell its operator. The same request may fail again.", NO),
        Kind("stage-unavailable", _S.SERVICE_UNAVAILABLE, "Stage not available",
             "A stage of the pipeline that the answer needs is not available at the moment.",
             "Wait for Retry-After.", LATER),
        Kind("stage-failed", _S.SERVICE_UNAVAILABLE, "Stage failed",
             "A stage failed, and the request takes a whole answer or none.",
             "Wait for Retry-After, or do without `handling=strict`.", LATER),
        Kind("not-ready", _S.SERVICE_UNAVAILABLE, "Not ready",
             "The cluster starts, ends, or lacks a stage; `detail` has which.", "Wait for Retry-After.", LATER),
        Kind("replica-died", _S.SERVICE_UNAVAILABLE, "Replica died",
             "The process that had the request has died. It may have been worked on; sending it again does no harm.",
             "Wait for Retry-After.", LATER),
        Kind("too-many-connections", _S.SERVICE_UNAVAILABLE, "Too many connections",
             "This address, or all together, have more connections than the cluster keeps, and none of them is idle.",
             "Use one connection for many requests.", LATER, closes=True),
        Kind("deadline", _S.GATEWAY_TIMEOUT, "Deadline passed",
             "There was no answer by the deadline; `limit` is the one that applied.",
             "Ask for more time (Amser-Deadline-Ms), or try again when there is less to do.", AT_ONCE),
    )
}  # fmt: skip
