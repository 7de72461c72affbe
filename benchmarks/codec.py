"""What bits buy: word errors and emotions against kbit/s, for every transport, in quiet and in noise.

    python -m benchmarks.codec --manifest SPEECH.tsv --json FILE --noise NOISE.tsv --emotion EMOTION.tsv

The papers' Figure 1 with its rivals. `kbps` counts the codec's own bytes, `exchange_kbps` what HTTP carries for them on
a connection that is kept: envelope or container, and the headers of request and answer. WER is jiwer's on text that
Whisper's English normaliser has levelled. Standard errors are bootstrapped over utterances; `wer_delta` is the
difference to `pcm` in the same condition, whose error is paired and smaller. What was heard once is kept.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from whisper.normalizers import EnglishTextNormalizer

from amser.audio import read
from amser.codecs.klt_tables import tables as klt_tables
from amser.features import Float32
from benchmarks.asr import read_manifest
from benchmarks.measuring import codec_summary
from benchmarks.measuring.bootstrap import Integers, per_cent, word_errors
from benchmarks.measuring.codec_emotion import EmotionBench
from benchmarks.measuring.codec_summary import PCM_KBPS, UNCOMPRESSED, Row
from benchmarks.measuring.noise import CLEAN, Babble, Condition, Noise, Recordings, mix
from benchmarks.measuring.report import write_rows
from benchmarks.measuring.transmission import (
    AT_ONCE,
    Arrived,
    Kept,
    Recognizer,
    Transcriber,
    Utterance,
    digest_of_tables,
)
from benchmarks.plots.codec import plot
from edge_sim.protocol import ANSWER_BODY, ANSWER_HEADER, URL, request_header
from edge_sim.transports import TRANSPORTS, Transport, UnknownTransport, by_name
from models.weights import UnknownModel, WeightsMissing, fingerprint, model_path
from models.whisper.ctranslate2_engine import CTranslate2Engine
from models.whisper.recognizer import WhisperRecognizer
from models.whisper.voice import VoiceEncoder
from training.corpora.catalogue import open_corpus
from training.data.texts import TextFeatureExtractor
from training.fitting.recipe import Recipe
from training.train import DEFAULT_RECIPE

CONDITIONS: Final = ("clean", "babble-10db", "noise-5db")
REFERENCE: Final = (UNCOMPRESSED, "16-bit")
WITH_A_RATE: Final = ("svd-f16", "svd-i8")  # their setting is r / k
EMOTION_SETTINGS: Final = ("svd-f16:0.125", "klt:low", "klt:standard", "opus:8k", "interpolation:4x2")
WIDTH_OF_A_PIPE: Final = 120  # columns, where the output is no terminal
FIGURES_OF_WORDS: Final = (
    *("kbps", "percent_of_pcm", "elementary_kbps", "exchange_kbps", "payload_bytes_mean"),
    *("wer", "wer_se", "wer_delta", "wer_delta_se", "utterances"),
)
FIGURES_OF_EMOTIONS: Final = (
    *("ua", "ua_low", "ua_high", "ua_delta", "ua_delta_se"),
    *("ua_by", "ua_corpus", "ua_utterances", "ua_kbps"),
)


@dataclass(frozen=True, slots=True)
class Spoken:
    """A line of the manifest: the recording, its name there, what is said, by whom, in which language."""

    path: Path
    name: str
    text: str
    speaker: str | None
    language: str


def read_speech(manifest: Path) -> list[Spoken]:
    """The lines of a manifest with the columns path and text and, if there are, speaker and language."""
    files = read_manifest(manifest, None, None)
    with manifest.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    return [
        Spoken(path, row["path"], text, row.get("speaker"), row.get("language") or "en")
        for (path, text), row in zip(files, rows, strict=True)
    ]


def without_speakers(speech: Sequence[Spoken], readers: Sequence[str]) -> tuple[list[Spoken], list[str]]:
    """The speech of everyone else, and which of these readers were left out."""
    kept = [each for each in speech if each.speaker not in readers]
    return kept, sorted({each.speaker for each in speech if each.speaker is not None} & set(readers))


def read_recordings(manifest: Path) -> Recordings:
    """The files of a manifest with a column path, which is relative to a folder above it."""
    with manifest.open(encoding="utf-8", newline="") as lines:
        names = [row["path"] for row in csv.DictReader(lines, delimiter="\t")]
    folder = next((each for each in manifest.resolve().parents if names and (each / names[0]).is_file()), None)
    if folder is None:
        raise SystemExit(f"{manifest}: its recordings are in no folder above it")
    return Recordings([folder / name for name in names])


def babble_of(speech: Sequence[Spoken]) -> Babble:
    """All readers of the speech, as each other's noise."""
    recordings: dict[str, list[Path]] = defaultdict(list)
    for each in speech:
        if each.speaker is not None:
            recordings[each.speaker].append(each.path)
    return Babble(recordings, cache(read))


def heard_in(condition: Condition, speech: Sequence[Spoken], noises: dict[str, Noise]) -> list[Utterance]:
    """The utterances with the noise of a condition."""

    def waveform(each: Spoken) -> Float32:
        clean = read(each.path)
        if condition.kind == CLEAN:
            return clean
        return mix(clean, noises[condition.kind](each.name, each.speaker, clean.size), condition.snr_db)

    return [Utterance.of(waveform(each), each.language) for each in speech]


def exchange_bytes(transport: Transport, payload_bytes: int) -> int:
    """Of a payload: itself, and the headers of request and answer; without the answer's body, TLS, TCP and IP."""
    answer = len(ANSWER_HEADER) + len(str(len(ANSWER_BODY)))
    return payload_bytes + _request_header(len(str(payload_bytes)), transport.route, transport.media_type) + answer


@cache
def _request_header(digits: int, route: str, media_type: str) -> int:
    return len(request_header(URL, 10 ** (digits - 1), route, media_type))


def blank_row(transport: Transport, condition: str) -> Row:
    """A row before anything is measured."""
    rate = float(transport.setting) if transport.name in WITH_A_RATE else None
    head = {"transport": transport.name, "setting": transport.setting, "rate": rate, "condition": condition}
    return head | dict.fromkeys((*FIGURES_OF_WORDS, *FIGURES_OF_EMOTIONS))


def word_row(
    transport: Transport,
    condition: str,
    utterances: Sequence[Utterance],
    arrived: Sequence[Arrived],
    errors: Integers,
    reference: Integers,
    words: Integers,
) -> Row:
    """A row of word errors; `errors`, `reference` (those of PCM) and `words` are of each utterance."""
    seconds = sum(utterance.seconds for utterance in utterances)
    kbps = 8 * sum(each.elementary_bytes for each in arrived) / seconds / 1000
    exchange = 8 * sum(exchange_bytes(transport, each.payload_bytes) for each in arrived) / seconds / 1000
    wer, wer_se = per_cent(errors, words)
    delta, delta_se = per_cent(errors - reference, words)
    return blank_row(transport, condition) | {
        "kbps": round(kbps, 4),
        "percent_of_pcm": round(100 * kbps / PCM_KBPS, 4),
        "elementary_kbps": round(kbps, 4),
        "exchange_kbps": round(exchange, 4),
        "payload_bytes_mean": round(sum(each.payload_bytes for each in arrived) / len(arrived), 1),
        "wer": round(wer, 3),
        "wer_se": round(wer_se, 3),
        "wer_delta": round(delta, 3),
        "wer_delta_se": round(delta_se, 3),
        "utterances": len(arrived),
    }


def measure_words(
    transports: Sequence[Sequence[Transport]],
    conditions: Sequence[Condition],
    speech: Sequence[Spoken],
    noises: dict[str, Noise],
    transcriber: Transcriber,
) -> Iterator[list[Row]]:
    """The rows of each transport, at all its settings, in each condition. The first setting of all is the reference."""
    normalize = EnglishTextNormalizer()
    speech = [each for each in speech if normalize(each.text)]
    references = [normalize(each.text) for each in speech]
    for condition in conditions:
        utterances = heard_in(condition, speech, noises)
        reference: Integers | None = None
        for settings in transports:
            rows = []
            for transport in settings:
                arrived = transcriber.send(transport, utterances, str(condition))
                errors, words = word_errors(references, [normalize(each.text) for each in arrived])
                reference = errors if reference is None else reference
                rows.append(word_row(transport, str(condition), utterances, arrived, errors, reference, words))
            yield rows


def add_emotions(rows: list[Row], transport: Transport, figures: Row) -> None:
    """Unweighted accuracy into the row of the same setting and clean speech, or into a new one."""
    place = (transport.name, transport.setting, CLEAN)
    row = next((row for row in rows if (row["transport"], row["setting"], row["condition"]) == place), None)
    if row is None:
        row = blank_row(transport, CLEAN)
        rows.append(row)
    row.update(figures)


def chosen_transports(names: Sequence[str], overrides: Sequence[str]) -> list[list[Transport]]:
    """Every transport at its settings, the uncompressed one first. Raises UnknownTransport, UnknownSetting."""
    settings: dict[str, list[str]] = {}
    name = ""
    for text in (part for each in overrides for part in each.split(",")):  # opus:6k,16k klt:low
        before, colon, after = text.partition(":")
        name, setting = (before, after) if colon else (name, before)
        settings.setdefault(name, []).append(setting)
    wanted = dict.fromkeys((UNCOMPRESSED, *names, *settings))
    if unknown := wanted.keys() - TRANSPORTS.keys():
        raise UnknownTransport(f"no transport {', '.join(sorted(unknown))}", ", ".join(TRANSPORTS))
    return [[by_name(each, setting) for setting in settings.get(each, TRANSPORTS[each].settings)] for each in wanted]


def emotion_transports(settings: Sequence[str]) -> list[Transport]:
    """As they are named, after the uncompressed one. Raises UnknownTransport, UnknownSetting."""
    pairs = dict.fromkeys((REFERENCE, *(text.partition(":")[::2] for text in settings)))
    return [by_name(name, setting) for name, setting in pairs]


def load_recognizer(weights: str, threads: int) -> Recognizer:
    """Whisper as the cluster serves it."""
    return WhisperRecognizer(CTranslate2Engine(model_path(weights), threads=threads), "short", AT_ONCE)


def emotion_bench(options: argparse.Namespace, kept: Kept, transcriber: Transcriber) -> EmotionBench:
    """The recipe's networks and its recogniser, which may be another one than the words were measured with."""
    recipe = Recipe.read(DEFAULT_RECIPE)
    if recipe.recogniser != options.weights:
        transcriber = _transcriber(kept, recipe.recogniser, options.threads)
    return EmotionBench(
        recipe,
        open_corpus(options.emotion),
        TextFeatureExtractor(),
        transcriber,
        lambda: VoiceEncoder(model_path(recipe.recogniser), threads=options.threads),
        options.emotion_limit,
    )


def _transcriber(kept: Kept, weights: str, threads: int) -> Transcriber:
    return Transcriber(kept, fingerprint(weights), partial(load_recognizer, weights, threads))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = _parser()
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_PIPE
    try:
        transports = chosen_transports(options.transports, options.settings)
        for_emotions = emotion_transports(options.emotion_settings)
        named = options.conditions or [name for name in CONDITIONS if options.noise or not name.startswith("noise")]
        conditions = [Condition.parse(name) for name in named]
    except ValueError as error:
        parser.error(str(error))
    speech = read_speech(options.manifest)
    if not options.all_speakers:
        judged, left_out = without_speakers(speech, klt_tables().about["readers"])
        console.print(
            f"left out: {len(left_out)} readers that klt's tables learnt from, {len(speech) - len(judged)} utterances; "
            f"{len(judged)} stay"
        )
        speech = judged
    noises: dict[str, Noise] = {"babble": babble_of(speech)}
    if options.noise:
        noises["noise"] = read_recordings(options.noise)
    elif any(condition.kind == "noise" for condition in conditions):
        parser.error("the condition noise needs recordings: --noise NOISE.tsv")
    if options.limit:
        speech = speech[:: -(-len(speech) // options.limit)]  # some of every extractor
    if not speech:
        parser.error(f"{options.manifest}: nobody is left to be judged; --all-speakers keeps everyone")

    digest_of_tables()  # from here on those of this process, whatever becomes of the file
    kept = Kept()
    transcriber = _transcriber(kept, options.weights, options.threads)
    try:  # before the hours of the words: what the emotions need may be missing
        bench = emotion_bench(options, kept, transcriber) if options.emotion else None
    except (ValueError, FileNotFoundError, UnknownModel, WeightsMissing) as error:
        parser.error(f"emotions: {error}")
    if bench:
        console.print(f"emotions by {bench.networks.by}: {bench.networks.remark}")
    about: dict[str, Any] = {"command": "benchmarks.codec", "corpus": options.manifest.stem, "weights": options.weights}
    rows: list[Row] = []
    for measured in measure_words(transports, conditions, speech, noises, transcriber):
        rows += measured
        write_rows(options.json, rows, **about)
    if bench:
        for transport in for_emotions:
            add_emotions(rows, transport, bench.measure(transport))
            write_rows(options.json, rows, **about)
    plot(rows, options.json)
    for table in codec_summary.tables(rows):
        console.print(table)
    for line in codec_summary.summary(rows):
        console.print(line)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codec", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--manifest", type=Path, required=True, help="tab-separated: path, text and, better, speaker and language")
    add("--json", type=Path, required=True, metavar="FILE", help="where the rows go; plots beside it")
    add("--limit", type=int, help="every k-th utterance only, N at most, of those that are judged")
    add("--noise", type=Path, metavar="TSV", help="recordings for the condition noise, a column path")
    add("--conditions", nargs="+", metavar="C", help=f"(default: {', '.join(CONDITIONS)}, the last with --noise only)")
    add(
        "--transports", nargs="+", metavar="T", default=list(TRANSPORTS), help=f"{', '.join(TRANSPORTS)} (default: all)"
    )
    add("--settings", nargs="+", metavar="T:S,S", default=[], help="such as opus:6k,16k, in place of all of its own")
    add("--weights", default="whisper-base", help="of the words: a name in the weight catalogue (default: %(default)s)")
    add("--all-speakers", action="store_true", help="keep those that klt's tables learnt from")
    add("--threads", type=int, default=1, help="of CTranslate2 and torch (default: %(default)s)")
    add("--emotion", metavar="CORPUS", help="a manifest, or NAME=FOLDER, to judge emotions on")
    add("--emotion-limit", type=int, metavar="N", help="every k-th utterance, N in all, over speakers and classes")
    add("--emotion-settings", nargs="+", metavar="T:S", default=list(EMOTION_SETTINGS), help="(default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
