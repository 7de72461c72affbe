"""What bits buy: word errors and emotions against kbit/s, for every transport, in quiet and in noise.

    python -m benchmarks.codec --manifest SPEECH.tsv --noise NOISE.tsv --emotion EMOTION.tsv

The papers' Figure 1 with its baselines. `kbps` counts the codec's own bytes, `exchange_kbps` what HTTP carries for them
on a connection that is kept: envelope or container, and the headers of request and answer. WER is jiwer's on text that
Whisper's English normaliser has levelled; its standard errors are bootstrapped over utterances, those of UA over
speakers. `wer_delta` is the difference to `pcm` in the same condition, whose error is paired and smaller. What was
recognised once is kept.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from whisper.normalizers import EnglishTextNormalizer

from amser.codecs.klt_tables import tables as klt_tables
from amser.features import Float32
from benchmarks.measuring import codec_summary, command, manifest
from benchmarks.measuring.bootstrap import Integers, per_cent, word_errors
from benchmarks.measuring.codec_emotion import EmotionBench
from benchmarks.measuring.codec_summary import PCM_KBPS, UNCOMPRESSED, Row
from benchmarks.measuring.command import CannotBegin
from benchmarks.measuring.console import output, progress
from benchmarks.measuring.manifest import NOISE, Recording, data_file, read_file, read_manifest
from benchmarks.measuring.noise import CLEAN, VOICES, Babble, Condition, Noise, Recordings, mix
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
from load_tests.commands import count
from models.weights import UnknownModel, WeightsMissing, fingerprint, model_path
from models.whisper.ctranslate2_engine import CTranslate2Engine
from models.whisper.recognizer import WhisperRecognizer
from models.whisper.voice import VoiceEncoder
from training.corpora.catalogue import open_corpus
from training.data.texts import TextFeatureExtractor
from training.data_folder import VARIABLE as DATA
from training.fitting.recipe import Recipe
from training.train import DEFAULT_RECIPE

CONDITIONS: Final = ("clean", "babble-10db", "noise-5db")
REFERENCE: Final = (UNCOMPRESSED, "16-bit")
WITH_A_RATE: Final = ("svd-f16", "svd-i8")  # their setting is r / k
EMOTION_SETTINGS: Final = ("svd-f16:0.125", "klt:low", "klt:standard", "opus:8k", "interpolation:4x2")
DEFAULT_LANGUAGE: Final = "en"  # of speech whose manifest has no column language
FIGURES_OF_WORDS: Final = (
    *("kbps", "percent_of_pcm", "elementary_kbps", "exchange_kbps", "payload_bytes_mean"),
    *("wer", "wer_se", "wer_delta", "wer_delta_se", "utterances"),
)
FIGURES_OF_EMOTIONS: Final = (
    *("ua", "ua_low", "ua_high", "ua_delta", "ua_delta_se"),
    *("ua_by", "ua_corpus", "ua_utterances", "ua_kbps"),
)


def without_speakers(speech: Sequence[Recording], speakers: Sequence[str]) -> tuple[list[Recording], list[str]]:
    """The speech of everyone else, and which of these speakers were left out."""
    kept = [each for each in speech if each.speaker not in speakers]
    return kept, sorted({each.speaker for each in speech if each.speaker is not None} & set(speakers))


def babble_of(speech: Sequence[Recording]) -> Babble:
    """All speakers of the speech, as each other's noise."""
    recordings: dict[str, list[Path]] = defaultdict(list)
    for each in speech:
        if each.speaker is not None:
            recordings[each.speaker].append(each.path)
    return Babble(recordings, cache(read_file))


def noises_of(speech: Sequence[Recording], noise: Path | None) -> tuple[dict[str, Noise], dict[str, str]]:
    """What speech can be mixed with, by kind, and why not with the others.

    Args:
        speech: whose speakers babble.
        noise: manifest of recordings.

    Raises:
        ManifestError: the manifest cannot be used.
    """
    noises: dict[str, Noise] = {}
    missing: dict[str, str] = {}
    babble = babble_of(speech)
    if any(each.speaker is None for each in speech):
        missing["babble"] = "it is made of other speakers, and the manifest does not say who speaks (column speaker)"
    elif len(babble.recordings) <= VOICES:
        missing["babble"] = (
            f"it is made of {VOICES} other speakers, and the manifest has {len(babble.recordings)} in all"
        )
    else:
        noises["babble"] = babble
    if noise is None:
        missing["noise"] = f"it needs recordings: --noise TSV, or {NOISE} in the folder {DATA}"
    else:
        noises["noise"] = Recordings([each.path for each in read_manifest(noise)])
    return noises, missing


def conditions_of(names: Sequence[str] | None, missing: dict[str, str]) -> tuple[list[Condition], list[str]]:
    """Which conditions are measured, and a line for each that is left out because its noise is missing.

    Args:
        names: of the command line; None takes those of `CONDITIONS` that can be had.
        missing: kinds of noise, and why.

    Raises:
        ValueError: a name that is none.
        CannotBegin: one is named whose noise is missing.
    """
    wanted = [Condition.parse(name) for name in names or CONDITIONS]
    absent = [each for each in wanted if each.kind in missing]
    if names and absent:
        raise CannotBegin(f"--conditions {absent[0]}: {missing[absent[0].kind]}")
    remarks = [f"left out: {each}: {missing[each.kind]}" for each in absent]
    return [each for each in wanted if each not in absent], remarks


def mixed(condition: Condition, speech: Sequence[Recording], noises: dict[str, Noise]) -> list[Utterance]:
    """The utterances with the noise of a condition."""

    def waveform(each: Recording) -> Float32:
        clean = each.waveform()
        if condition.kind == CLEAN:
            return clean
        try:
            return mix(clean, noises[condition.kind](each.name, each.speaker, clean.size), condition.snr_db)
        except ValueError as error:
            raise CannotBegin(f"{each.path}, {condition}: {error}") from None

    listed = progress(speech, f"reading, {condition}")
    return [Utterance.of(waveform(each), each.language or DEFAULT_LANGUAGE) for each in listed]


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
    speech: Sequence[Recording],
    noises: dict[str, Noise],
    transcriber: Transcriber,
) -> Iterator[list[Row]]:
    """The rows of each transport, at all its settings, in each condition. The first setting of all is the reference."""
    normalize = EnglishTextNormalizer()
    speech = [each for each in speech if normalize(each.text)]
    references = [normalize(each.text) for each in speech]
    for condition in conditions:
        utterances = mixed(condition, speech, noises)
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
    """Unweighted accuracy into the row of the same setting and condition, or into a new one."""
    place = (transport.name, transport.setting, figures["condition"])
    row = next((row for row in rows if (row["transport"], row["setting"], row["condition"]) == place), None)
    if row is None:
        row = blank_row(transport, figures["condition"])
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


@command.benchmark("codec")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = _parser()
    options = command.parse(parser, arguments)
    console = output()
    try:
        transports = chosen_transports(options.transports, options.settings)
        for_emotions = emotion_transports(options.emotion_settings)
        conditions_of(options.conditions, {})
    except ValueError as error:
        parser.error(str(error))
    speech = manifest.recordings_of(options)
    if not options.all_speakers:
        judged, left_out = without_speakers(speech, klt_tables().about["readers"])
        console.print(
            f"left out: {len(left_out)} speakers that klt's tables learnt from, {len(speech) - len(judged)} "
            f"utterances; {len(judged)} stay"
        )
        speech = judged
    if not speech:
        raise CannotBegin(f"{options.manifest}: no speaker is left to be judged; --all-speakers keeps all")
    noises, missing = noises_of(speech, options.noise or _default_noise())
    conditions, remarks = conditions_of(options.conditions, missing)
    for remark in remarks:
        console.print(remark)
    if options.limit:
        speech = speech[:: -(-len(speech) // options.limit)]  # some of every speaker

    digest_of_tables()  # from here on those of this process, whatever becomes of the file
    kept = Kept()
    command.require_weights([options.weights])
    transcriber = _transcriber(kept, options.weights, options.threads)
    try:  # before the hours of the words: what the emotions need may be missing
        bench = emotion_bench(options, kept, transcriber) if options.emotion else None
    except (ValueError, FileNotFoundError, UnknownModel, WeightsMissing) as error:
        raise CannotBegin(f"emotions: {error}") from None
    if bench:
        console.print(f"emotions by {bench.judge.by}: {bench.judge.remark}")
    about: dict[str, Any] = {"corpus": options.manifest.stem, "weights": options.weights}
    rows: list[Row] = []
    for measured in measure_words(transports, conditions, speech, noises, transcriber):
        rows += measured
        write_rows(options.json, rows, **about)
    if bench:
        for condition in conditions:
            bench.hear(condition, noises)
            for transport in for_emotions:
                add_emotions(rows, transport, bench.measure(transport))
                write_rows(options.json, rows, **about)
    plot(rows, options.json)
    for table in codec_summary.tables(rows):
        console.print(table)
    for line in codec_summary.summary(rows):
        console.print(line)


def _default_noise() -> Path | None:
    """The recordings of AMSER_DATA's folder, where there are any."""
    file = data_file(NOISE)
    return file if file and file.is_file() else None


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("codec", __doc__, plot=True)
    manifest.add_options(parser, (manifest.PATH, manifest.TEXT), ("speaker", "language"))
    add = parser.add_argument
    add("--limit", type=count, metavar="N", help="every k-th utterance only, N at most, of those that are judged")
    add("--noise", type=Path, metavar="TSV", help=f"recordings, a column path (default: {NOISE} in the folder {DATA})")
    add("--conditions", nargs="+", metavar="C", help=f"default: {', '.join(CONDITIONS)}, as far as there is noise")
    add("--transports", nargs="+", metavar="T", default=list(TRANSPORTS), help=f"{', '.join(TRANSPORTS)}; default: all")
    add("--settings", nargs="+", metavar="T:S,S", default=[], help="such as opus:6k,16k, in place of all of its own")
    add("--weights", default="whisper-base", metavar="NAME", help="of the words, in the weight catalogue (%(default)s)")
    add("--all-speakers", action="store_true", help="keep those that klt's tables learnt from")
    add("--threads", type=count, default=1, metavar="N", help="of CTranslate2 and torch (default: %(default)s)")
    add("--emotion", metavar="CORPUS", help="a manifest, or NAME=FOLDER, to judge emotions on")
    add("--emotion-limit", type=count, metavar="N", help="every k-th utterance, N in all, over speakers and classes")
    settings = " ".join(EMOTION_SETTINGS)
    add("--emotion-settings", nargs="+", metavar="T:S", default=EMOTION_SETTINGS, help=f"default: {settings}")
    return parser


if __name__ == "__main__":
    main()
