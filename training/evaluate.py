"""Judge a checkpoint on any corpus: `python -m training.evaluate --manifest FILE --codec svd-f16:0.125 --json
FILE`.

Every utterance goes through the stages of the cluster (`training.data.extraction`), compression first, then through the
checkpoint. Prints accuracy with intervals by speaker and the confusion matrix; writes one JSON row a codec setting.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import platform
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from models.emotion.batch import UtteranceFeatures, voice_alone
from models.emotion.checkpoint import load
from models.emotion.checkpoint_info import DEFAULT_CHECKPOINT, CheckpointError, CheckpointInfo
from models.emotion.network import FusionNetwork
from models.weights import UnknownModel, fingerprint
from training.corpora.catalogue import open_corpus
from training.corpora.manifest import Corpus, ManifestError
from training.data.extraction import RECOGNISER, THREADS, CodecSetting, extract
from training.data.screening import screen, summary_of
from training.data.texts import TextFeatureExtractor
from training.fitting.loop import predict
from training.judging.calibration import expected_calibration_error, negative_log_likelihood
from training.judging.confidence import risk_coverage
from training.judging.metrics import Scores, confusion, score

TRAINING_DATA_WARNING = "training data: not an estimate of accuracy"
EXAMPLES = """
examples:
  python -m training.evaluate --manifest corpora/nemo.tsv
  python -m training.evaluate --manifest corpora/nemo.tsv --codec none svd-f16:0.125 --json rows.json
  python -m training.evaluate --corpus ravdess=/data/ravdess --checkpoint iemocap.st --classes common

Features are kept in Amser's cache folder, so a second run starts at once.
"""
ALL, COMMON = "all", "common"  # classes to judge on
VERSIONS_OF = ("torch", "numpy", "transformers", "ctranslate2", "spacy")


@dataclass(frozen=True, slots=True)
class Judged:
    """Answers on one corpus at one codec setting.

    Attributes:
        setting: the codec and rate.
        scores: figures over the classes that the corpus has.
        matrix: counts (classes, classes), row the true class.
        calibration_error: expected calibration error of the probabilities.
        negative_log_likelihood: mean, in nats.
        surest_half: accuracy of the half of the utterances with the highest probabilities.
        risk_coverage_area: AURC, see `training.judging.confidence`.
    """

    setting: CodecSetting
    scores: Scores
    matrix: NDArray[np.int64]
    calibration_error: float
    negative_log_likelihood: float
    surest_half: float
    risk_coverage_area: float


def choose_classes(corpus: Corpus, known: Sequence[str], *, common: bool = False) -> tuple[str, ...]:
    """The classes that a network which knows `known` is judged on: all of them, or those that the corpus has too.

    Raises:
        ManifestError: the corpus has a class that the network does not know, or fewer than two are common.
    """
    shared = tuple(name for name in known if name in corpus.classes_present)
    if common:
        if len(shared) < 2:
            raise ManifestError(
                f"{corpus.name} has {', '.join(corpus.classes_present)}, the network knows {', '.join(known)}: two "
                "classes at least must be common"
            )
        return shared
    foreign = [name for name in corpus.classes_present if name not in known]
    if foreign:
        raise ManifestError(
            f"{corpus.name} has {', '.join(foreign)}, which the network does not know; --classes common judges on "
            f"what both have: {', '.join(shared) or 'nothing'}"
        )
    return tuple(known)


def judge(
    corpus: Corpus,
    setting: CodecSetting,
    probabilities: NDArray[np.float32],
    known: Sequence[str],
    chosen: Sequence[str],
) -> Judged:
    """Compare probabilities of the classes `known` with the labels of a corpus's utterances of the `chosen` ones.

    A chosen class that the corpus does not have can still be answered, and then is wrong.

    Args:
        corpus: n utterances.
        setting: the codec and rate that they went through.
        probabilities: (n, known).
        known: names of the network's classes.
        chosen: those of them to judge on, see `choose_classes`; utterances of others are left out.
    """
    members = [number for number, record in enumerate(corpus.records) if record.emotion in chosen]
    truth = np.array([chosen.index(corpus.records[number].emotion) for number in members])
    speakers = [corpus.records[number].speaker for number in members]
    return compare(setting, among(probabilities[members], known, chosen), truth, speakers)


def among(probabilities: NDArray[np.float32], known: Sequence[str], chosen: Sequence[str]) -> NDArray[np.float32]:
    """Probabilities (n, known) if only the classes `chosen` were possible: (n, chosen), rows sum to 1."""
    columns: NDArray[np.float32] = probabilities[:, [known.index(name) for name in chosen]]
    shares: NDArray[np.float32] = columns / np.maximum(columns.sum(1, keepdims=True), np.finfo(np.float32).tiny)
    return shares


def compare(
    setting: CodecSetting, probabilities: NDArray[np.float32], truth: NDArray[np.int64], speakers: Sequence[str]
) -> Judged:
    """Compare probabilities (n, classes) with class numbers (n,) of utterances of the named speakers (n,)."""
    answers = probabilities.argmax(1)
    curve = risk_coverage(probabilities, truth)
    return Judged(
        setting,
        score(truth, answers, speakers),
        confusion(truth, answers, probabilities.shape[1]),
        expected_calibration_error(probabilities, truth),
        negative_log_likelihood(probabilities, truth),
        curve.accuracy_at(0.5),
        curve.area,
    )


def row(
    judged: Judged, model: str, corpus: str, protocol: str, classes: Sequence[str], modalities: Sequence[str]
) -> dict[str, Any]:
    """The JSON row of a result."""
    return {
        "model": model,
        "corpus": corpus,
        "protocol": protocol,
        "classes": [name for name, counts in zip(classes, judged.matrix, strict=True) if counts.any()],
        "codec": judged.setting.name,
        "rate": judged.setting.setting.rate,
        "step": judged.setting.setting.step,
        "modalities": "+".join(modalities),
        **figures(judged),
        "confusion": judged.matrix.tolist(),
        **environment(),
    }


def figures(judged: Judged) -> dict[str, float | int | None]:
    """The figures of a row. `ua_low` and `ua_high` are None where fewer than two speakers give no interval."""
    scores = judged.scores
    return {
        "wa": scores.wa.value,
        "ua": scores.ua.value,
        "macro_f1": scores.macro_f1.value,
        "weighted_f1": scores.weighted_f1.value,
        "ua_low": None if math.isnan(scores.ua.low) else scores.ua.low,
        "ua_high": None if math.isnan(scores.ua.high) else scores.ua.high,
        "ece": judged.calibration_error,
        "nll": judged.negative_log_likelihood,
        "surest_half": judged.surest_half,
        "aurc": judged.risk_coverage_area,
        "n": scores.n,
        "n_speakers": scores.n_speakers,
    }


def modalities_read(network: FusionNetwork, utterances: Sequence[UtteranceFeatures]) -> tuple[str, ...]:
    """The modalities that a network reads of these utterances: no text where none has words of a language it knows."""
    if any(len(utterance.words) for utterance in utterances):
        return network.modalities
    return tuple(name for name in network.modalities if name not in ("words", "context"))


def environment() -> dict[str, Any]:
    """Hardware and versions that a figure was measured with."""
    return {
        "hardware": {"machine": platform.machine(), "processor": _processor(), "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in VERSIONS_OF},
    }


def scores_table(title: str, rows: Sequence[tuple[str, Judged]]) -> Table:
    """A table of figures, one named row a set of answers, legible at 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    for name in ("n", "spea-\nkers", "UA, 95 % by speaker", "macro\nF1", "ECE", "NLL", "surest\nhalf"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, judged in rows:
        scores = judged.scores
        values = (scores.macro_f1.value, judged.calibration_error, judged.negative_log_likelihood, judged.surest_half)
        numbers = (f"{value:.3f}" for value in values)
        table.add_row(name, str(scores.n), str(scores.n_speakers), str(scores.ua), *numbers)
    return table


def confusion_table(matrix: NDArray[np.int64], classes: Sequence[str]) -> Table:
    """Answers (columns) for each true class (rows); classes without utterances have no row."""
    table = Table("true \\ answer", *classes, "recall", title="confusion")
    for name, counts in zip(classes, matrix, strict=True):
        if total := counts.sum():
            recall = counts[classes.index(name)] / total
            table.add_row(name, *(str(count) for count in counts), f"{recall:.2f}")
    return table


def protocol_of(corpus: Corpus, info: CheckpointInfo) -> str:
    """How a figure on this corpus must be read."""
    return TRAINING_DATA_WARNING if corpus.name in info.corpora else "cross-corpus, nothing trained on this corpus"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(THREADS)
    console = Console()
    try:
        extractor = TextFeatureExtractor(options.text_encoder, options.word_vectors)
        network, info = load(options.checkpoint, {"asr": fingerprint(options.whisper)} | extractor.fingerprints)
        settings = [CodecSetting.parse(text) for text in options.codec]
        corpus = screen(open_corpus(options.corpus, options.root))
        classes = choose_classes(corpus, info.config.classes, common=options.classes == COMMON)
        results = []
        for setting in settings:
            features = extract(corpus, setting, extractor, recogniser=options.whisper)
            utterances = [
                each if record.language in (None, *info.text_languages) else voice_alone(each)
                for each, record in zip(features, corpus.records, strict=True)
            ]
            probabilities = predict(network, utterances, info.temperature)
            results.append(judge(corpus, setting, probabilities, info.config.classes, classes))
    except (UnknownModel, ManifestError, CheckpointError, OSError, ValueError) as error:
        print(f"training.evaluate: {error}", file=sys.stderr)
        return 2
    protocol = protocol_of(corpus, info)
    if options.classes == COMMON:
        protocol += f", classes in common: {', '.join(classes)}"
    _print(console, corpus, results, info.name, classes, protocol)
    if options.json:
        left_out = {fault: len(names) for fault, names in corpus.unusable.items()}
        rows = [
            row(result, info.name, corpus.name, protocol, classes, modalities_read(network, utterances))
            | {"left_out": left_out}
            for result in results
        ]
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


def _print(
    console: Console, corpus: Corpus, results: Sequence[Judged], model: str, classes: Sequence[str], protocol: str
) -> None:
    if corpus.unknown_labels:
        console.print(f"left out, label unknown: {_counts(corpus.unknown_labels)}")
    if others := Counter(record.emotion for record in corpus.records if record.emotion not in classes):
        console.print(f"left out, class unknown to the network: {_counts(others)}")
    if corpus.unusable:
        console.print(summary_of(corpus), style="yellow")
    console.print(scores_table(f"{model} on {corpus.name}", [(str(each.setting), each) for each in results]))
    for each in results:
        console.print(confusion_table(each.matrix, classes), f"at {each.setting}")
    console.print(f"[bold]{protocol}[/bold]")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{label!r} ({count})" for label, count in counts.items())


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description=(
            "Judge a checkpoint on a corpus: every utterance goes through the stages of the cluster, compression and "
            "recognition too, and what comes out is compared with its label."
        ),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--corpus",
        "--manifest",
        required=True,
        metavar="CORPUS",
        help="a manifest (TSV with path, emotion, speaker and, better, language), or NAME=FOLDER",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="folder that its paths are relative to (default: the nearest one above the manifest that has the files)",
    )
    parser.add_argument(
        "--whisper", default=RECOGNISER, metavar="MODEL", help=f"the recogniser (default: {RECOGNISER})"
    )
    parser.add_argument("--text-encoder", metavar="MODEL", help="name, folder or id (default: all-minilm-l6-v2)")
    parser.add_argument("--word-vectors", metavar="MODEL", help="name, or folder of spaCy's (default: English)")
    parser.add_argument(
        "--codec",
        nargs="+",
        default=["svd-f16:0.125"],
        metavar="CODEC",
        help="none, or a codec and its rate; a row each (default: svd-f16:0.125)",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=DEFAULT_CHECKPOINT,
        metavar="FILE",
        help="the network (default: the checkpoint that comes with Amser)",
    )
    parser.add_argument(
        "--classes",
        choices=(ALL, COMMON),
        default=ALL,
        help="judge on all classes of the network, or on those that the corpus has too, with probabilities that sum to "
        f"1 over them (default: {ALL})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
