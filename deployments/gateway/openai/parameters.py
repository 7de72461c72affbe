"""The fields of a transcription request, as OpenAI's API names them: each is honoured, or refused by its name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from deployments.gateway.problems import Refusal, refusal_of

Format: TypeAlias = Literal["json", "text", "srt", "verbose_json", "vtt"]
Granularity: TypeAlias = Literal["word", "segment"]

FORMATS: Final[tuple[Format, ...]] = get_args(Format)
GRANULARITIES: Final[tuple[Granularity, ...]] = get_args(Granularity)
STREAMED: Final = ("json", "text")  # the formats of which there is a stream; its events are the same for both

ALIAS: Final = "whisper-1"  # what clients of OpenAI ask for

_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False, "": False}
# What is refused whatever its value, and what is said of it
_NOT_DONE: Final = {
    "include": "the probabilities of tokens are not given",
    "keywords": "the recogniser takes no words that guide it",
    "languages": "name one language, in `language`, or none, to have it detected",
    "known_speaker_names": "speakers are not told apart",
    "known_speaker_references": "speakers are not told apart",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client wants to have made of its recording.

    Attributes:
        language: that is spoken, as the client writes it; None to have it detected.
        format: of the answer.
        granularities: what an answer in `verbose_json` lists.
        stream: whether the answer comes in events.
    """

    language: str | None = None
    format: Format = "json"
    granularities: frozenset[Granularity] = frozenset({"segment"})
    stream: bool = False

    @property
    def words(self) -> bool:
        """Whether the times of words are needed; captions end between words."""
        return "word" in self.granularities or self.format in ("srt", "vtt")


def read_parameters(fields: Mapping[str, Sequence[str]], models: Collection[str]) -> Asked:
    """What the fields of a request ask for, apart from the file.

    Args:
        fields: by name, with the `[]` that clients put behind the names of lists or without, each with its values.
        models: ids that a request may name; it may name none.

    Raises:
        Refusal: a field has a value that cannot be honoured, or is not known; `parameter` names it.
    """
    given: dict[str, list[str]] = {}
    for name, values in fields.items():
        given.setdefault(name.removesuffix("[]"), []).extend(values)
    for name, values in given.items():
        if name in _NOT_DONE:
            raise _refused(name, _NOT_DONE[name], f"no `{name}`")
        if name not in _ONCE and name != "timestamp_granularities":
            raise _refused(name, f"{name!r:.60} is no parameter of this route", ", ".join(sorted(KNOWN)))
        if name in _ONCE and len(values) > 1:
            raise _refused(name, f"`{name}` is given {len(values)} times", "it once")
    once = {name: values[0] for name, values in given.items() if name in _ONCE}
    _check_model(once.get("model", ""), models)
    for name, check in _CHECKS.items():
        if once.get(name, "").strip():
            check(once[name].strip())
    form = _format(once.get("response_format", "").strip() or "json")
    stream = _BOOLEANS.get(once.get("stream", "").strip().lower())
    if stream is None:
        raise _refused("stream", f"`stream` is {once['stream']!r:.40}", "true or false")
    if stream and form not in STREAMED:
        raise _refused("stream", f"there are no events of the format {form}", f"`stream` with {' or '.join(STREAMED)}")
    granularities = _granularities(given.get("timestamp_granularities", ()), form)
    return Asked(once.get("language") or None, form, granularities, stream)


def _check_model(named: str, models: Collection[str]) -> None:
    if named and named not in models:
        raise unknown_model(named, models)


def unknown_model(named: str, models: Collection[str]) -> Refusal:
    """There is no such model here."""
    limit = " or ".join(models)
    cause = f"this cluster has no model {named!r:.60}"
    known = refusal_of("unknown-model", cause, limit)
    return Refusal(known.status, cause, limit, parameter="model", kind="unknown-model")


def _format(written: str) -> Format:
    found = next((form for form in FORMATS if form == written), None)
    if found is None:
        why = "speakers are not told apart" if written == "diarized_json" else f"there is no format {written!r:.40}"
        raise _refused("response_format", why, ", ".join(FORMATS))
    return found


def _granularities(written: Sequence[str], form: Format) -> frozenset[Granularity]:
    if not written:
        return frozenset({"segment"})
    name, limit = "timestamp_granularities", ", ".join(GRANULARITIES)
    if form != "verbose_json":
        raise _refused(name, f"an answer in {form} has no timestamps to choose", "it with verbose_json alone")
    unknown = next((each for each in written if each not in GRANULARITIES), None)
    if unknown is not None:
        raise _refused(name, f"there is no granularity {unknown!r:.40}", limit)
    return frozenset(each for each in GRANULARITIES if each in written)


def _prompt(_: str) -> None:
    raise _refused("prompt", "the recogniser takes no text that guides it", "no `prompt`, or an empty one")


def _temperature(written: str) -> None:
    try:
        honoured = float(written) == 0
    except ValueError:
        honoured = False
    if not honoured:
        cause = f"`temperature` is {written!r:.40}; the recogniser takes the most probable words"
        raise _refused("temperature", cause, "0, or none")


def _chunking(written: str) -> None:
    if written.strip('"') != "auto":
        raise _refused("chunking_strategy", "a recording is cut at its pauses here", "auto, or none")


_CHECKS: Final[Mapping[str, Callable[[str], None]]] = {
    "prompt": _prompt,
    "temperature": _temperature,
    "chunking_strategy": _chunking,
}
_ONCE: Final = frozenset({"model", "language", "response_format", "stream", *_CHECKS})
KNOWN: Final = _ONCE | {"file", "timestamp_granularities"}


def _refused(name: str, cause: str, limit: str) -> Refusal:
    known = refusal_of("bad-parameter", cause, limit)
    return Refusal(known.status, cause, limit, parameter=name[:60], kind="bad-parameter")
