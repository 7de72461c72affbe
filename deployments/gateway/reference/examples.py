"""An example of every answer, for OpenAPI and docs/api.md; tests hold them to their models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from deployments.gateway.problems import EXAMPLE_ID, refusal_of

JSON: Final = "application/json"
TEXT: Final = "Kids are talking by the door."
PROBABILITIES: Final = {
    "angry": 0.8312, "disgust": 0.0021, "fear": 0.1381, "happy": 0.0194, "neutral": 0.0013, "sad": 0.0061,
    "surprise": 0.0018,
}  # fmt: skip

ANSWER: Final = {
    "request_id": EXAMPLE_ID,
    "emotion": "angry",
    "probabilities": PROBABILITIES,
    "confidence": 0.8312,
    "uncertain": False,
    "doubts": [],
    "speech": "yes",
    "speech_probability": 0.9871,
    "transcript": {"text": TEXT, "language": "en", "average_log_probability": -0.31},
    "input": {"codec": "svd-f16", "bytes": 9855, "seconds": 4.104, "rank": 10},
    "timings_ms": {
        "queue": 33.5, "mel": 0.3, "asr": 190.9, "text_embedding": 0.2, "text_encoder": 59.8, "fusion": 4.9,
        "total": 290.1,
    },
    "models": {
        "asr": "whisper-base-short (onnxruntime)",
        "text_embedding": "spacy-en-core-web-md",
        "text_encoder": "all-minilm-l6-v2",
        "fusion": "amser-states",
    },
    "degraded": [],
    "warnings": [],
}  # fmt: skip

_PROBLEM: Final = refusal_of("too-long", "the utterance has 4000 frames", "up to 3000").problem(EXAMPLE_ID)
BATCH: Final = {
    "items": [
        {"status": 200, "answer": ANSWER},
        {"status": 413, "problem": _PROBLEM.model_dump(exclude_none=True)},
    ]
}

_EMOTION: Final = {
    "label": "angry",
    "confidence": 0.8312,
    "uncertain": False,
    "doubts": [],
    "probabilities": PROBABILITIES,
}
TRANSCRIPTION: Final = {
    "text": TEXT,
    "usage": {"type": "duration", "seconds": 4.104},
    "emotion": _EMOTION,
    "speech": "yes",
    "degraded": [],
    "warnings": [],
}
VERBOSE_TRANSCRIPTION: Final = {
    **TRANSCRIPTION,
    "task": "transcribe",
    "language": "en",
    "duration": 4.104,
    "segments": [
        {
            "id": 0,
            "seek": 0,
            "start": 0.0,
            "end": 4.104,
            "text": TEXT,
            "tokens": [],
            "temperature": 0.0,
            "avg_logprob": -0.31,
            "compression_ratio": 0.8056,
            "no_speech_prob": 0.0129,
            "emotion": _EMOTION,
        }
    ],
}
_HEARD: Final = {
    "text": TEXT,
    "language": "en",
    "emotion": "angry",
    "confidence": 0.8312,
    "probabilities": PROBABILITIES,
}
_SEGMENT: Final = {
    **_HEARD,
    "start": 0.52,
    "end": 2.18,
    "uncertain": False,
    "doubts": [],
    "speech": "yes",
    "degraded": [],
    "problem": None,
}
RECORDING: Final = {**_HEARD, "seconds": 4.104, "warnings": [], "segments": [_SEGMENT]}
JOB: Final = {
    "id": EXAMPLE_ID,
    "status": "running",
    "progress": 0.5,
    "created": "2026-11-27T14:00:00+00:00",
    "expires": "2026-11-28T14:00:00+00:00",
    "segments": [_SEGMENT],
    "result": None,
    "problem": None,
}
EVENTS: Final = (
    "event: transcript.text.delta\n"
    f'data: {{"type": "transcript.text.delta", "delta": "{TEXT}"}}\n\n'
    "event: transcript.text.done\n"
    f'data: {{"type": "transcript.text.done", "text": "{TEXT}", "emotion": {{"label": "angry"}}}}\n\n'
)
SUBRIP: Final = f"1\n00:00:00,520 --> 00:00:02,180\n{TEXT}\n\n"
WEBVTT: Final = f"WEBVTT\n\n00:00:00.520 --> 00:00:02.180\n{TEXT}\n\n"

STAGES: Final = {
    "mel": {"model": "mel-f16, svd-f16, svd-i8, interpolation, klt", "device": "cpu"},
    "asr": {"model": "whisper-base-short (onnxruntime)", "device": "cpu"},
    "text_embedding": {"model": "spacy-en-core-web-md", "device": "cpu"},
    "text_encoder": {"model": "all-minilm-l6-v2", "device": "cpu"},
    "fusion": {"model": "amser-states", "device": "cpu"},
}
MODEL: Final = {"id": "whisper-1", "object": "model", "created": 1663718400, "owned_by": "amser"}
MODELS: Final = {"object": "list", "data": [{**MODEL, "id": "whisper-base-short"}, MODEL], "stages": STAGES}
ALIVE: Final = {"status": "ok"}
READY: Final = {"status": "ready", "stages": "5"}


def answered(description: str, **examples: Mapping[str, Any]) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of the answer of a route, with examples by name."""
    return with_status(200, description, **examples)


def with_status(status: int, description: str, **examples: Mapping[str, Any]) -> dict[int | str, dict[str, Any]]:
    """The same for an answer with another status."""
    shown = {name: {"value": value} for name, value in examples.items()}
    return {status: {"description": description, "content": {JSON: {"examples": shown}}}}
