"""CPU seconds of each stage against what it is given: what the simulation of the cluster is made from.

    OMP_NUM_THREADS=1 python -m benchmarks.service_times --manifest SPEECH.tsv

The plain classes run on the turns of the sample conversation and on utterances of a manifest, in batches of 1 to 8, and
a linear cost is fitted to each part; how far single batches are from it is kept. Under three minutes on two cores.
"""

from __future__ import annotations

import multiprocessing
import os
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from random import Random
from typing import Any, Final, TypeVar

import numpy as np
from rich.table import Table
from scipy.optimize import nnls

from amser.client.device import Device, DeviceSettings
from amser.features import FRAMES_PER_SECOND, Float32
from amser.wire import Limits, unpack
from benchmarks.measuring import command, manifest
from benchmarks.measuring.cluster import require_models
from benchmarks.measuring.console import output, progress, status, table
from benchmarks.measuring.report import environment
from deployments.accelerator import SHARES
from deployments.settings import Settings
from edge_sim.conversation import load_conversation
from load_tests.commands import count
from load_tests.simulation import service_times
from load_tests.simulation.application import DEPLOYMENTS
from load_tests.simulation.service_times import (
    Cost,
    ServiceTime,
    ServiceTimes,
    Serving,
    load,
)
from models.emotion.classifier import EmotionClassifier
from models.mel import reconstruct
from models.messages import Mel, TextFeatures, Transcript
from models.text.context_encoder import ContextEncoder
from models.text.word_vectors import WordVectors
from models.weights import model_path
from models.whisper.engine import Decoded, Encoded, Engine, States, TokenTime
from models.whisper.engines import load_engine
from models.whisper.recognizer import WhisperRecognizer

BATCH_SIZES: Final = (1, 2, 4, 8)
QUANTILES: Final = 41  # of the residuals, 0 and 1 among them
CONTENTION_S: Final = 6.0  # that the recogniser runs for, alone and on every core
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Row:
    """CPU milliseconds of one batch, with the seconds of speech and the tokens that it held."""

    milliseconds: float
    seconds: tuple[float, ...]
    tokens: tuple[int, ...]


class TimedEngine:
    """An engine that notes what its calls cost."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.bands, self.width, self.multilingual = engine.bands, engine.width, engine.multilingual
        self.hears_short, self.model = engine.hears_short, engine.model
        self._detected_ms = 0.0  # of languages, which belongs to the text that is decoded next
        self.encoded_ms: list[float] = []
        self.decoded: list[tuple[float, tuple[int, ...]]] = []  # milliseconds, and the tokens of each text

    def encode(self, log_mel: Float32) -> Encoded:
        milliseconds, encoded = timed(lambda: self._engine.encode(log_mel))
        self.encoded_ms.append(milliseconds)
        return encoded

    def language_probabilities(self, states: States) -> list[dict[str, float]]:
        self._detected_ms, probabilities = timed(lambda: self._engine.language_probabilities(states))
        return probabilities

    def decode(
        self, states: States, languages: Sequence[str], maximum_tokens: int, draft: Sequence[int] = ()
    ) -> list[Decoded]:
        milliseconds, texts = timed(lambda: self._engine.decode(states, languages, maximum_tokens, draft))
        self.decoded.append((self._detected_ms + milliseconds, tuple(len(text.tokens) for text in texts)))
        return texts

    def align(self, states: States, language: str, tokens: Sequence[int], frames: int) -> list[TokenTime]:
        return self._engine.align(states, language, tokens, frames)

    def text_of(self, tokens: Sequence[int]) -> str:
        return self._engine.text_of(tokens)


def timed(call: Callable[[], Result]) -> tuple[float, Result]:
    """CPU milliseconds of this process, every thread, and the result."""
    started = time.process_time()
    result = call()
    return 1000.0 * (time.process_time() - started), result


def fit(rows: Iterable[Row], *terms: str) -> Cost:
    """The cost in these terms whose relative errors are least in their squares; none is negative (Lawson-Hanson)."""
    rows = list(rows)
    names = [field.name for field in fields(Cost)]
    measured = np.array([row.milliseconds for row in rows])
    held = np.array([load(row.seconds, row.tokens) for row in rows])[:, [names.index(term) for term in terms]]
    solution, _ = nnls(held / measured[:, None], np.ones(len(rows)))
    return Cost(**{term: round(float(value), 5) for term, value in zip(terms, solution, strict=True)})


def service_time(
    parts: dict[str, Cost], whole: Sequence[Row], second_passes: Sequence[tuple[float, float]] = ()
) -> ServiceTime:
    """The parts, and how far the whole batches are from their sum."""
    cost = sum(parts.values(), Cost())
    ratios = [row.milliseconds / cost.milliseconds(row.seconds, row.tokens) for row in whole]
    residuals = tuple(np.quantile(ratios, np.linspace(0, 1, QUANTILES)).round(4).tolist())
    return ServiceTime(parts, residuals, tuple(second_passes))


def batches(count: int, seed: int = 1) -> list[list[int]]:
    """Every utterance once in a batch of each size, in random company."""
    random = Random(seed)
    chosen = []
    for size in BATCH_SIZES:
        order = random.sample(range(count), count)
        chosen += [order[start : start + size] for start in range(0, count, size)]
    return chosen


def measure(waveforms: Sequence[Float32]) -> tuple[dict[str, ServiceTime], list[tuple[float, int]]]:
    """Service times of every stage, and each utterance's seconds and tokens."""
    settings = Settings()
    device = Device(DeviceSettings(language="en"))
    bodies = [device.encode(waveform, datetime.now(UTC)).envelope for waveform in waveforms]
    unpacked = [timed(lambda body=body: unpack(body)) for body in bodies]  # type: ignore[misc]
    rebuilt = [timed(lambda envelope=each: reconstruct(envelope, Limits())) for _, each in unpacked]  # type: ignore[misc]
    mels = [mel for _, mel in rebuilt]

    whisper = model_path(settings.recognizer.weights)
    engine = TimedEngine(load_engine(settings.recognizer.engine, whisper))
    recognizer = WhisperRecognizer(engine, settings.recognizer.context, max(BATCH_SIZES))
    asr, encoded, decoded, tokens, transcripts = transcribe(recognizer, engine, mels)
    again = second_passes(recognizer, mels)

    def rows_of(milliseconds: Iterable[float]) -> list[Row]:
        return [
            Row(each, (mel.seconds,), (token,)) for each, mel, token in zip(milliseconds, mels, tokens, strict=True)
        ]

    texts = [transcript.text for transcript in transcripts]
    vectors = WordVectors(model_path(settings.word_vectors))
    context = ContextEncoder(model_path(settings.text_encoder.model))
    vectors.embed("warm up")
    context.encode(["warm up"])
    embedded = [timed(lambda text=text: vectors.embed(text)) for text in texts]  # type: ignore[misc]
    encoder_rows = []
    for batch in progress(batches(len(mels)), "text encoder"):
        milliseconds, _ = timed(lambda batch=batch: context.encode([texts[each] for each in batch]))  # type: ignore[misc]
        encoder_rows.append(_row(milliseconds, batch, mels, tokens))

    classifier = EmotionClassifier(settings.fusion_checkpoint, None)
    fused = []
    for position in progress(range(-1, len(mels)), "fusion"):  # the first one warms up
        mel, transcript = mels[position], transcripts[position]
        states = transcript.voice  # it comes with the words
        assert states is not None
        words, (states_of_text,) = vectors.embed(transcript.text), context.encode([transcript.text])
        text_features = TextFeatures(transcript.language, words, states_of_text)
        cost, _ = timed(lambda: classifier.classify(mel, states, text_features))  # noqa: B023 - called at once
        if position >= 0:
            fused.append(cost)

    utterance = ("item", "second")
    fusion_rows = rows_of(fused)
    ingress, mel_rows, word_rows = (rows_of(each for each, _ in of) for of in (unpacked, rebuilt, embedded))
    stages = {
        "ingress": service_time({"unpack": fit(ingress, "item")}, ingress),
        "mel": service_time({"codec": fit(mel_rows, *utterance)}, mel_rows),
        "asr": service_time(
            {
                "encode": fit(encoded, *utterance),
                "decode": fit(decoded, "call", "item", "longest_token", "token"),
            },
            asr,
            again,
        ),
        "text_embedding": service_time({"words": fit(word_rows, "item", "token")}, word_rows),
        "text_encoder": service_time({"encoder": fit(encoder_rows, "call", "item", "padded_token")}, encoder_rows),
        "fusion": service_time({"network": fit(fusion_rows, *utterance, "token")}, fusion_rows),
    }
    return stages, [(round(mel.seconds, 2), token) for mel, token in zip(mels, tokens, strict=True)]


def transcribe(
    recognizer: WhisperRecognizer, engine: TimedEngine, mels: Sequence[Mel]
) -> tuple[list[Row], list[Row], list[Row], list[int], list[Transcript]]:
    """Rows of whole batches, of the encoder and of the decoder; and tokens and transcript of each utterance.

    The recogniser decodes utterances of a batch apart where their lengths differ much. What it does not believe and
    hears a second time is in the transcripts, not in the rows.
    """
    recognizer.transcribe(mels[:1])
    measured: list[tuple[float, list[int]]] = []
    encoded: list[Row] = []
    decoder: list[tuple[float, list[int]]] = []
    tokens = [0] * len(mels)
    for batch in progress(batches(len(mels)), "recogniser"):
        engine.encoded_ms.clear()
        engine.decoded.clear()
        ordered = sorted(batch, key=lambda each: mels[each].frames)  # as the recogniser does
        milliseconds, firsts = timed(lambda: recognizer.first_pass([mels[each] for each in ordered]))  # noqa: B023
        for each, first, encode_ms in zip(ordered, firsts, engine.encoded_ms, strict=True):
            tokens[each] = max(1, len(first.decoded.tokens))
            encoded.append(Row(encode_ms, (mels[each].seconds,), (tokens[each],)))
        measured.append((milliseconds, ordered))
        place = 0
        for decode_ms, counts in engine.decoded:
            together = ordered[place : place + len(counts)]
            decoder.append((decode_ms, together))
            place += len(counts)
    whole = [_row(milliseconds, batch, mels, tokens) for milliseconds, batch in measured]
    decoded = [_row(milliseconds, batch, mels, tokens) for milliseconds, batch in decoder]
    return whole, encoded, decoded, tokens, recognizer.transcribe(mels)


def second_passes(recognizer: WhisperRecognizer, mels: Sequence[Mel]) -> list[tuple[float, float]]:
    """Seconds of each utterance, and CPU milliseconds of its second pass; 0 where the first is believed."""
    measured = []
    for mel in mels:
        (first,) = recognizer.first_pass([mel])
        again_ms = timed(lambda: recognizer.second_pass(mel, first))[0] if recognizer.is_doubtful(first) else 0.0  # noqa: B023
        measured.append((round(mel.seconds, 2), round(again_ms, 1)))
    return measured


def _row(milliseconds: float, batch: Sequence[int], mels: Sequence[Mel], tokens: Sequence[int]) -> Row:
    return Row(milliseconds, tuple(mels[each].seconds for each in batch), tuple(tokens[each] for each in batch))


def contention(cores: int) -> float:
    """CPU seconds that the recogniser takes with every core busy, against those it takes alone."""
    spawn = multiprocessing.get_context("spawn")

    def milliseconds(processes: int) -> float:
        with ProcessPoolExecutor(processes, spawn) as pool:
            return float(np.median([job.result() for job in [pool.submit(_recognise) for _ in range(processes)]]))

    return max(1.0, milliseconds(cores) / milliseconds(1))


def _recognise() -> float:
    """Median CPU milliseconds of a second of noise, over and over."""
    settings = Settings().recognizer
    recognizer = load_engine(settings.engine, model_path(settings.weights))
    noise = np.random.default_rng(1).normal(0, 0.3, (recognizer.bands, 500)).astype(np.float32)
    measured: list[float] = []
    ends = time.perf_counter() + CONTENTION_S
    while time.perf_counter() < ends:
        measured.append(timed(lambda: recognizer.encode(noise))[0])
    return float(np.median(measured[len(measured) // 4 :]))  # the other processes were still starting


@command.benchmark("service_times")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command.parser("service_times", __doc__)
    manifest.add_options(parser)
    parser.add_argument("--limit", type=count, default=24, metavar="N", help="every k-th utterance, N in all (24)")
    options = command.parse(parser, arguments)

    listed = manifest.recordings_of(options)
    require_models(command.CONVERSATION)
    conversation = [turn.waveform for turn in load_conversation(model_path(command.CONVERSATION))]
    chosen = listed[:: max(1, len(listed) // options.limit)][: options.limit]
    waveforms = [*conversation, *(each.waveform() for each in progress(chosen, "reading"))]
    with status("contention: the recogniser alone, and on every core"):
        slower = contention(len(os.sched_getaffinity(0)))
    stages, utterances = measure(waveforms)
    spoken = utterances[: len(conversation)]
    before = service_times.read()
    times = ServiceTimes(
        stages,
        serving(Settings()),
        round(slower, 3),
        before.overhead_ms,  # which `benchmarks.prediction` measures
        before.overhead_source,
        tuple(spoken),
        tuple(utterances[len(spoken) :]),
        environment(),
    )
    service_times.write(times, options.json)
    output().print(costs_table(times))
    if options.json.resolve() != service_times.MEASURED:
        output().print(f"python -m load_tests plan --service-times {shlex.quote(str(options.json))} plans with them")


def serving(settings: Settings) -> dict[str, Serving]:
    """Threads, batches and shares of each stage, as the application has them."""
    recognizer, encoder = settings.recognizer, settings.text_encoder
    batching: dict[str, dict[str, Any]] = {
        "asr": {
            "threads": recognizer.batches,
            "batch_size": recognizer.batch_size,
            "gpu_batch_size": recognizer.gpu_batch_size,
            "budget_s": recognizer.batch_frames / FRAMES_PER_SECOND,
        },
        "text_encoder": {"batch_size": encoder.batch_size, "gpu_batch_size": encoder.gpu_batch_size},
    }
    return {
        stage: Serving(**batching.get(stage, {}), cpus=SHARES[name].num_cpus, gpu=SHARES[name].num_gpus)
        for stage, name in DEPLOYMENTS.items()
    }


def costs_table(times: ServiceTimes) -> Table:
    """The fitted costs, and how far batches are from them."""
    names = [field.name for field in fields(Cost)]
    columns = ("stage", "part", *(name.replace("_", "\n") for name in names), "p5", "p95")
    shown = table("CPU milliseconds; p5 and p95 are of measured over fitted", columns, words=2)
    for name, stage in times.stages.items():
        spread = [f"{float(np.quantile(stage.residuals, at)):.2f}" for at in (0.05, 0.95)]
        for part, cost in stage.parts.items():
            shown.add_row(
                name.replace("_", " "), part, *(f"{term:.2f}" if term else "" for term in cost.terms()), *spread
            )
    shown.caption = f"contention {times.contention}, overhead {dict(times.overhead_ms)} ms a request"
    return shown


if __name__ == "__main__":
    main()
