"""CPU seconds of each stage, as measured on real speech: what the simulation's stages cost.

`python -m benchmarks.service_times` measures and writes `service_times.json`; the simulation and the planner read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from load_tests.simulation.stage import Request, SecondPass, Service

MEASURED: Final = Path(__file__).with_name("service_times.json")
SHORTEST_S, LONGEST_S = 0.1, 30.0  # of an utterance
NEIGHBOURS: Final = 7  # measured utterances of about the same length, of which one says how fast it is spoken

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a batch costs: CPU milliseconds, linear in what is in it.

    Attributes:
        call: for the batch.
        item: for each utterance.
        second: for each second of speech.
        longest_token: for each token of the longest text.
        token: for each token of every text.
        padded_token: for each token of the longest text in every text: shorter ones are padded.
    """

    call: float = 0.0
    item: float = 0.0
    second: float = 0.0
    longest_token: float = 0.0
    token: float = 0.0
    padded_token: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(mine + theirs for mine, theirs in zip(self.terms(), other.terms(), strict=True)))

    def terms(self) -> tuple[float, ...]:
        """The coefficients, in the order of the fields."""
        return tuple(asdict(self).values())

    def milliseconds(self, seconds: Sequence[float], tokens: Sequence[float]) -> float:
        """Of a batch of utterances, each with its seconds of speech and its tokens."""
        return float(np.dot(self.terms(), load(seconds, tokens)))


def load(seconds: Sequence[float], tokens: Sequence[float]) -> tuple[float, ...]:
    """What a batch holds, one number for each field of `Cost`."""
    count, longest = len(seconds), max(tokens)
    return (1.0, count, sum(seconds), longest, sum(tokens), count * longest)


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """What a stage costs, and how far single batches are from it.

    Attributes:
        parts: that add up, such as encoder and decoder.
        residuals: measured over fitted, at quantiles from 0 to 1 in even steps.
        second_passes: seconds of speech of measured utterances, and CPU milliseconds of their second pass, 0 where the
            first was believed; empty for a stage that has none.
    """

    parts: Mapping[str, Cost]
    residuals: tuple[float, ...]
    second_passes: tuple[tuple[float, float], ...] = ()

    @property
    def cost(self) -> Cost:
        """All parts."""
        return sum(self.parts.values(), Cost())

    @property
    def mean_residual(self) -> float:
        """Of the batches that `service` draws."""
        return float(np.trapezoid(self.residuals, dx=1.0 / (len(self.residuals) - 1)))

    def mean_ms(self, seconds: float, tokens: float) -> float:
        """Of an utterance that is alone in its batch, and of its second pass."""
        return self.mean_residual * self.cost.milliseconds([seconds], [tokens]) + self.second_pass_ms(seconds)

    def second_pass_ms(self, seconds: float) -> float:
        """Of the measured utterance that is nearest in length; 0 where it had none."""
        nearest = min(self.second_passes, key=lambda each: abs(each[0] - seconds), default=(0.0, 0.0))
        return nearest[1]

    def second_pass(self, speed_up: float = 1.0) -> SecondPass:
        """CPU seconds of a request's second pass."""
        return lambda request: self.second_pass_ms(request.speech_s) / 1000.0 / speed_up

    def service(self, speed_up: float = 1.0) -> Service:
        """CPU seconds of a batch, drawn anew for each: the fitted cost times a measured residual.

        Args:
            speed_up: of the device against the one that was measured.
        """
        call, item, second, longest_token, token, padded_token = (
            term / 1000.0 / speed_up for term in self.cost.terms()
        )
        residuals, steps = self.residuals, len(self.residuals) - 1

        def seconds_of(batch: Sequence[Request], random: Random) -> float:
            count, longest = len(batch), max(request.tokens for request in batch)
            cost = call + item * count + (longest_token + padded_token * count) * longest
            cost += sum(second * request.speech_s + token * request.tokens for request in batch)
            place = random.random() * steps
            below = int(place)
            return cost * (residuals[below] + (place - below) * (residuals[below + 1] - residuals[below]))

        return seconds_of


@dataclass(frozen=True, slots=True)
class Serving:
    """How the application that was measured runs a stage.

    Attributes:
        threads: batches that a replica computes at once.
        batch_size, gpu_batch_size: utterances of a batch at most.
        budget_s: seconds of speech of a batch at most; None has no such limit.
        cpus, gpu: that a replica asks Ray for.
    """

    threads: int = 1
    batch_size: int = 1
    gpu_batch_size: int = 1
    budget_s: float | None = None
    cpus: float = 0.1
    gpu: float = 0.0


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """A machine's service times.

    Attributes:
        stages: by name: ingress, mel, asr, text_embedding, text_encoder, fusion.
        serving: threads and batches of each stage.
        contention: CPU seconds of the recogniser with every core busy, against those it takes alone.
        overhead_ms: CPU of a request outside the stages (proxy, hops, serialisation), by profile.
        overhead_source: where that figure is from.
        conversation: (seconds of speech, tokens) of the turns of the sample conversation.
        other_utterances: the same of the utterances of a corpus that were measured.
        about: hardware, versions and the time.
    """

    stages: Mapping[str, ServiceTime]
    serving: Mapping[str, Serving]
    contention: float
    overhead_ms: Mapping[str, float]
    overhead_source: str
    conversation: tuple[tuple[float, int], ...]
    other_utterances: tuple[tuple[float, int], ...]
    about: Mapping[str, Any]

    @property
    def mean_speech_s(self) -> float:
        """Mean seconds of a turn of the conversation."""
        return float(np.mean([seconds for seconds, _ in self.conversation]))

    def speech(self, count: int, mean_s: float, seed: int) -> Floats:
        """(count,) seconds of speech: the lengths of the turns, drawn with replacement and scaled to a mean."""
        turns = np.array([seconds for seconds, _ in self.conversation])
        drawn = np.random.default_rng(seed).choice(turns, count) * (mean_s / turns.mean())
        lengths: Floats = np.clip(drawn, SHORTEST_S, LONGEST_S)
        return lengths

    def tokens(self, speech: Floats, seed: int) -> Floats:
        """(n,) tokens for utterances of these lengths, each as fast as a measured one of about its length."""
        seconds, tokens = np.array(sorted((*self.conversation, *self.other_utterances))).T
        rates = tokens / seconds
        first = np.searchsorted(seconds, speech) - NEIGHBOURS // 2
        offset = np.random.default_rng(seed).integers(0, NEIGHBOURS, speech.size)
        spoken: Floats = np.maximum(1.0, np.round(rates[np.clip(first + offset, 0, rates.size - 1)] * speech))
        return spoken


def write(times: ServiceTimes, file: Path = MEASURED) -> None:
    """Writes what `read` reads."""
    file.write_text(json.dumps(asdict(times), indent=1) + "\n", encoding="utf-8")


def read(file: Path = MEASURED) -> ServiceTimes:
    """What was measured.

    Raises:
        OSError, ValueError: the file is missing, or holds no service times.
    """
    document = json.loads(file.read_text(encoding="utf-8"))
    try:
        stages = {
            name: ServiceTime(
                {part: Cost(**cost) for part, cost in stage["parts"].items()},
                tuple(stage["residuals"]),
                tuple((seconds, milliseconds) for seconds, milliseconds in stage.get("second_passes", ())),
            )
            for name, stage in document.pop("stages").items()
        }
        serving = {name: Serving(**each) for name, each in document.pop("serving").items()}
        for name in ("conversation", "other_utterances"):
            document[name] = tuple((seconds, tokens) for seconds, tokens in document[name])
        return ServiceTimes(stages=stages, serving=serving, **document)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} holds no service times ({error}); measure them: python -m benchmarks.service_times"
        ) from None
