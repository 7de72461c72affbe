"""What goes over HTTP for a batch: its items, each as the single route would have answered it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

from deployments.gateway.idempotency import Reply
from deployments.gateway.problems import Problem, Refusal
from deployments.gateway.utterances.answers import Answer


class BatchItem(BaseModel):
    """What `POST /v1/emotion` would have said to one envelope: its status, and the answer or the problem document.

    `retry_after_s` and `replay` are what the headers `Retry-After` and `Amser-Replay` would have been.
    """

    status: int = Field(description="200 with `answer`, any other with `problem`")
    answer: Answer | None = None
    problem: Problem | None = None
    retry_after_s: int | None = None
    replay: Literal["stored", "joined"] | None = None


class BatchAnswer(BaseModel):
    """An item for each envelope, in their order."""

    items: list[BatchItem]


@dataclass(frozen=True, slots=True)
class Item:
    """One of a batch.

    Attributes:
        reply: where it was answered,
        refusal: or why it was not.
        request_id: of this item alone.
    """

    request_id: str
    reply: Reply | None = None
    refusal: Refusal | None = None

    def to_json(self) -> bytes:
        """A `BatchItem`. The answer's own bytes are in it, so that a kept one is the same byte for byte."""
        if self.reply is not None:
            replay = f',"replay":"{self.reply.replay}"'.encode() if self.reply.replay else b""
            return b'{"status":200,"answer":' + self.reply.body + replay + b"}"
        assert self.refusal is not None
        refused = self.refusal
        document = BatchItem(
            status=refused.status.value, problem=refused.problem(self.request_id), retry_after_s=refused.retry_after_s
        )
        return document.model_dump_json(exclude_none=True).encode()


def to_json(items: Iterable[Item]) -> bytes:
    """A `BatchAnswer`."""
    return b'{"items":[' + b",".join(item.to_json() for item in items) + b"]}"
