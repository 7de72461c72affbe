"""How far the times of words are off, what their confidence is worth, and what both cost.

    python -m benchmarks.realtime.word_times --manifest FILE --json FILE

Three rows. `sentences`: two of a synthetic voice with a pause between them; where each begins and ends is known from
its samples. `words`: six of the voice, spoken alone and joined without a pause, so that no silence shows where one
ends. `recordings` with transcripts: the area under the ROC curve of a word's confidence against whether the word is
right, with its interval over speakers, and CPU time with the times beside without, in turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import jiwer
import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from sklearn.metrics import roc_auc_score
from whisper.normalizers import EnglishTextNormalizer

from amser.features import SAMPLE_RATE, Float32
from benchmarks.measuring import bootstrap, command
from benchmarks.measuring.console import output, progress, table
from benchmarks.measuring.manifest import PATH, TEXT, add_options, recordings_of
from benchmarks.measuring.report import write_rows
from benchmarks.measuring.words.sentences import REPEATED, SINGLE_WORDS
from benchmarks.measuring.words.spoken import Voice
from load_tests.commands import count
from models.messages import Mel, Word
from models.weights import model_path
from models.whisper.ctranslate2_engine import CTranslate2Engine
from models.whisper.recognizer import WhisperRecognizer
from training.data.extraction import CodecSetting, compressed_mel

CODEC: Final = "klt:standard"  # what devices send
AUDIBLE: Final = 0.02  # of its peak: where the samples of a voice without noise begin and end
WORDS: Final = 6  # joined
PAUSES_S: Final = (0.3, 1.0)
NEAR_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Spoken:
    """What the voice said.

    Attributes:
        waveform: of all parts.
        parts: their texts.
        edges: seconds at which each begins and ends.
    """

    waveform: Float32
    parts: tuple[str, ...]
    edges: tuple[tuple[float, float], ...]


@command.benchmark("word_times")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command.parse(_parser(), arguments)
    recognizer = WhisperRecognizer(CTranslate2Engine(model_path(options.weights)))
    voice, random = Voice(options.seed), np.random.default_rng(options.seed)

    def some(texts: Sequence[str], many: int) -> list[str]:
        return [str(text) for text in random.choice(texts, many, replace=False)]

    made = [spoken(voice, some(REPEATED, 2), random.uniform(*PAUSES_S)) for _ in range(options.spoken)]
    joined = [spoken(voice, some(SINGLE_WORDS, WORDS), 0.0) for _ in range(options.spoken)]
    rows = [of_spoken(recognizer, "sentences", made), of_spoken(recognizer, "words", joined)]
    rows.append(of_recordings(recognizer, options))
    write_rows(options.json, rows, weights=options.weights, codec=CODEC)
    output().print(times_table(rows[:2]))
    last = rows[2]
    low, high = last["auc_interval"]
    output().print(
        f"{last['words']} words of {last['speakers']} readers, {last['wrong']} wrong: AUC of the confidence "
        f"{last['auc']:.3f} ({low:.3f} to {high:.3f}); CPU time × {last['cost']:.2f}"
    )


def spoken(voice: Voice, texts: Sequence[str], pause_s: float) -> Spoken:
    """Texts one after another, each without the silence of the voice around it."""
    pause = np.zeros(round(pause_s * SAMPLE_RATE), np.float32)
    parts, edges, at = [np.zeros(SAMPLE_RATE // 2, np.float32)], list[tuple[float, float]](), SAMPLE_RATE // 2
    for text in texts:
        samples = voice(text)
        audible = np.flatnonzero(np.abs(samples) > AUDIBLE * np.abs(samples).max())
        heard = samples[audible[0] : audible[-1] + 1]
        edges.append((at / SAMPLE_RATE, (at + heard.size) / SAMPLE_RATE))
        parts += [heard, pause]
        at += heard.size + pause.size
    parts.append(np.zeros(SAMPLE_RATE // 2, np.float32))
    return Spoken(np.concatenate(parts), tuple(texts), tuple(edges))


def of_spoken(recognizer: WhisperRecognizer, name: str, said: Sequence[Spoken]) -> dict[str, Any]:
    """How far beginnings and ends are off, of what was understood."""
    begins, ends, understood = [], [], 0
    for each in progress(said, name):
        words = words_of(recognizer, each.waveform)
        said_words = " ".join(each.parts).split()
        if len(words) != len(said_words) or plain(" ".join(word.text for word in words)) != plain(" ".join(said_words)):
            continue
        understood += 1
        last = 0
        for part, (begin, end) in zip(each.parts, each.edges, strict=True):
            inside = words[last : last + len(part.split())]
            last += len(inside)
            begins.append(abs(inside[0].start - begin))
            ends.append(abs(inside[-1].end - end))
    return {"part": name, "said": len(said), "understood": understood} | _off("begin", begins) | _off("end", ends)


def of_recordings(recognizer: WhisperRecognizer, options: argparse.Namespace) -> dict[str, Any]:
    """What the confidence of a word is worth, and the cost."""
    right: list[bool] = []
    confidence: list[float] = []
    speakers: list[str] = []
    without_ms, with_ms = 0.0, 0.0
    for recording in progress(recordings_of(options), "recordings"):
        mel = compressed_mel(recording.waveform(), CodecSetting.parse(CODEC), None)
        without_ms += _cpu_ms(recognizer, mel)
        timed = replace(mel, word_times=True)
        with_ms += _cpu_ms(recognizer, timed)
        (heard,) = recognizer.transcribe([timed])
        for word, is_right in zip(heard.words, matches(recording.text, heard.words), strict=True):
            right.append(is_right)
            confidence.append(word.confidence)
            speakers.append(recording.speaker or recording.name)
    area, interval = _area(np.array(right), np.array(confidence), np.array(speakers))
    return {
        "part": "recordings",
        "words": len(right),
        "wrong": right.count(False),
        "speakers": len({*speakers}),
        "auc": round(area, 4),
        "auc_interval": [round(edge, 4) for edge in interval],
        "cost": round(with_ms / without_ms, 3),
    }


def words_of(recognizer: WhisperRecognizer, waveform: Float32) -> tuple[Word, ...]:
    """With their times, as the cluster hears them from a device."""
    mel = compressed_mel(waveform, CodecSetting.parse(CODEC), "en")
    (heard,) = recognizer.transcribe([replace(mel, word_times=True)])
    return heard.words


def matches(reference: str, words: Sequence[Word]) -> list[bool]:
    """Whether each word stands in the transcript, where an alignment with the fewest errors puts it."""
    texts = [plain(word.text) for word in words]
    kept = [number for number, text in enumerate(texts) for _ in text.split()]
    found = [True] * len(words)
    if not kept:
        return found
    aligned = jiwer.process_words(plain(reference), " ".join(text for text in texts if text)).alignments[0]
    for chunk in aligned:
        if chunk.type != "equal":
            for position in range(chunk.hyp_start_idx, chunk.hyp_end_idx):
                found[kept[position]] = False
    return found


def plain(text: str) -> str:
    """Without case, punctuation and ways of spelling."""
    return str(EnglishTextNormalizer()(text))


def _area(right: NDArray[np.bool_], confidence: NDArray[np.float64], speakers: NDArray[np.str_]) -> tuple[float, Any]:
    names, of = np.unique(speakers, return_inverse=True)
    weights = bootstrap.draws(len(names))[:, of]
    areas = [
        roc_auc_score(right, confidence, sample_weight=weight)
        for weight in weights
        if len({*right[weight > 0].tolist()}) == 2
    ]
    return float(roc_auc_score(right, confidence)), np.percentile(areas, [2.5, 97.5]).tolist()


def _cpu_ms(recognizer: WhisperRecognizer, mel: Mel) -> float:
    started = time.process_time()
    recognizer.transcribe([mel])
    return 1000 * (time.process_time() - started)


def _off(name: str, errors: Sequence[float]) -> dict[str, float]:
    values = np.array(errors)
    return {
        f"{name}_ms_p50": round(1000 * float(np.median(values)), 1),
        f"{name}_ms_p90": round(1000 * float(np.percentile(values, 90)), 1),
        f"{name}_near": round(float(np.mean(values <= NEAR_S)), 4),
    }


def times_table(rows: Sequence[dict[str, Any]]) -> Table:
    """A line for what was joined with pauses, and one for what was joined without."""
    columns = ("said", "understood", "begin\nmedian", "begin\np90", "end\nmedian", "end\np90", "within\n0.1 s")
    made = table("times of words, off by ms", ("part", *columns))
    for row in rows:
        made.add_row(
            row["part"],
            f"{row['said']}",
            f"{row['understood']}",
            *(f"{row[f'{edge}_ms_{share}']:.0f}" for edge in ("begin", "end") for share in ("p50", "p90")),
            f"{row['begin_near']:.1%}, {row['end_near']:.1%}",
        )
    return made


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("word_times", __doc__)
    add_options(parser, (PATH, TEXT), ("speaker",))
    parser.add_argument("--weights", default="whisper-base-short", help="of the recogniser (%(default)s)")
    parser.add_argument("--spoken", type=count, default=150, help="of each kind of the synthetic voice (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of what the voice says (%(default)s)")
    return parser


if __name__ == "__main__":
    main()
