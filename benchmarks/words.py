"""Every word that was said, and no other: word errors, repeats, false silence, false speech, agreement with 30 s.

    python -m benchmarks.words --weights whisper-base --reference-weights whisper-base

Five parts, each by weights and context: `sentences` of a synthetic voice (single words, numbers, spelled words, code
words, pauses), `repeats` of sentences and clips, `recordings` with transcripts by codec and condition, `agreement` with
what the reference weights write of the padded 30 s, in several languages, and `sounds` in which nobody speaks. The
recordings are of readers from whom neither weights nor thresholds were learnt: fold 5, or those of `--readers`. What
the reference writes is kept, since it is slow. Speed is measured by `benchmarks.asr`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

from benchmarks.measuring import command
from benchmarks.measuring.command import CannotBegin
from benchmarks.measuring.console import output
from benchmarks.measuring.manifest import NOISE, PATH, SPEECH, TEXT, data_file
from benchmarks.measuring.noise import CLEAN, Condition, Recordings
from benchmarks.measuring.report import write_rows
from benchmarks.measuring.words import figures
from benchmarks.measuring.words.listening import (
    HINTS,
    REFERENCE,
    Heard,
    Hint,
    Listeners,
    System,
    mels_of,
)
from benchmarks.measuring.words.padded import folder_of
from benchmarks.measuring.words.recorded import (
    SPEAKER,
    clips_twice,
    in_noise,
    in_other_languages,
    joined_clips,
    of_readers,
)
from benchmarks.measuring.words.sounds import recordings_of, sounds
from benchmarks.measuring.words.spoken import Voice, repeats, sentences
from benchmarks.measuring.words.tables import (
    AGREEMENT,
    FALSE_SILENCE,
    PARTS,
    RECORDINGS,
    REPEATS,
    SENTENCES,
    SOUNDS,
    tables,
)
from benchmarks.measuring.words.utterance import Utterance, thinned
from load_tests.commands import count
from models.whisper.engine import BATCH_SIZE
from models.whisper.recognizer import Context
from training.data.extraction import CodecSetting
from training.data_folder import VARIABLE as DATA

Row = dict[str, Any]
CODECS: Final = ("none", "klt:standard", "svd-f16:0.125")
CODECS_OF_AGREEMENT: Final = CODECS[:2]
CONDITIONS: Final = (CLEAN, "noise-10db", "noise-5db")
SPEECH_MANIFESTS: Final = (SPEECH, "speech/librispeech_more.tsv")
AGREEMENT_MANIFESTS: Final = tuple(f"emotion/{name}.tsv" for name in ("ravdess", "nemo", "emovo", "ketts", "ased"))
READERS: Final = (5,)  # folds from which nothing is learnt
LIMIT: Final = 240


@dataclass(frozen=True, slots=True)
class Case:
    """Utterances that are measured in one way.

    Attributes:
        part: of the benchmark.
        name: of the utterances; of several kinds, each has a row of its own.
        utterances: what is heard.
        codec: through which they pass.
        condition: what they are mixed with; it is in them already.
        hint: what the recogniser is told about the language.
    """

    part: str
    name: str
    utterances: Sequence[Utterance]
    codec: str = "none"
    condition: str = CLEAN
    hint: Hint = "told"

    def __str__(self) -> str:
        return ", ".join((self.name, self.codec, self.condition, self.hint))


class Bench:
    """The parts and what they need, as the command line has it.

    Args:
        options: parsed.

    Raises:
        CannotBegin: a manifest is missing.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.systems = [System(weights, context) for weights in options.weights for context in options.context]
        self.reference = System(options.reference_weights, REFERENCE)
        self.listeners = Listeners(options.threads, options.batch_size)
        # What is missing is said before the work
        if {REPEATS, RECORDINGS} & {*options.only}:
            self._speech()
        if RECORDINGS in options.only:
            self._conditions()
        if {RECORDINGS, SOUNDS} & {*options.only}:
            self._noise()
        if AGREEMENT in options.only:
            self._of_agreement()

    def rows(self, part: str) -> Iterator[list[Row]]:
        """The rows of each case of a part. Raises ManifestError, CannotBegin where something is missing."""
        cases: dict[str, Callable[[], Iterator[Case]]] = {
            SENTENCES: self._sentences,
            REPEATS: self._repeats,
            RECORDINGS: self._recordings,
            AGREEMENT: self._agreement,
            SOUNDS: self._sounds,
        }
        for case in cases[part]():
            yield self._measured(case)

    # --- What is measured ---------------------------------------------------------------------------------------------

    def _sentences(self) -> Iterator[Case]:
        utterances = self._some_of_each(sentences(Voice(self.options.seed)))
        for codec in self.options.codec or CODECS[:1]:
            for hint in HINTS:
                yield Case(SENTENCES, SENTENCES, utterances, codec, hint=hint)

    def _repeats(self) -> Iterator[Case]:
        made = repeats(Voice(self.options.seed))
        recorded = [each for manifest in self._speech() for each in self._read(manifest, (PATH, SPEAKER, TEXT))]
        made += clips_twice(recorded) + joined_clips(recorded, self.options.seed)
        for codec in self.options.codec or CODECS[:1]:
            yield Case(REPEATS, REPEATS, self._some_of_each(made), codec)

    def _recordings(self) -> Iterator[Case]:
        noise = Recordings(self._noise())
        for manifest in self._speech():
            utterances = thinned(self._read(manifest, (PATH, SPEAKER, TEXT)), self.options.limit)
            for condition in self._conditions():
                mixed = [in_noise(each, condition, noise) for each in utterances]
                for codec in self.options.codec or CODECS:
                    yield Case(RECORDINGS, manifest.stem, mixed, codec, str(condition))
            for hint in HINTS[1:]:
                yield Case(RECORDINGS, manifest.stem, utterances, hint=hint)

    def _agreement(self) -> Iterator[Case]:
        for manifest in self._of_agreement():
            utterances = thinned(self._read(manifest), self.options.limit)
            for codec in self.options.codec or CODECS_OF_AGREEMENT:
                yield Case(AGREEMENT, manifest.stem, utterances, codec)
            yield Case(AGREEMENT, manifest.stem, utterances, hint="detected")
        if self.options.languages:
            others = in_other_languages(self.options.languages, self.options.seed, self.options.threads)
            for language, places in figures.by_kind(others).items():
                yield Case(AGREEMENT, language, [others[place] for place in places])

    def _sounds(self) -> Iterator[Case]:
        utterances = self._some_of_each(sounds(self._noise(), self.options.seed))
        for codec in self.options.codec or CODECS[:1]:
            for hint in ("detected", "told"):
                yield Case(SOUNDS, SOUNDS, utterances, codec, hint=hint)

    # --- How ----------------------------------------------------------------------------------------------------------

    def _measured(self, case: Case) -> list[Row]:
        label = str(case)
        mels = mels_of(case.utterances, CodecSetting.parse(case.codec), case.hint, label)
        references: list[Heard] = []
        systems = list(self.systems)
        if case.part == AGREEMENT:
            references = self.listeners.hear(self.reference, mels, label)
            self._keep_texts(case, self.reference, references)
        elif case.part != SOUNDS and case.hint != "wrong":
            systems.append(self.reference)
        rows = []
        for system in systems:
            heard = self.listeners.hear(system, mels, label)
            self._keep_texts(case, system, heard)
            for name, figures_of in self._figures(case, heard, references):
                about = {"part": case.part, "set": name, "weights": system.weights, "context": system.context}
                how = {"codec": case.codec, "condition": case.condition, "hint": case.hint}
                rows.append({**about, **how, **figures_of, "seconds": round(sum(each.seconds for each in heard), 1)})
        return rows

    def _keep_texts(self, case: Case, system: System, heard: Sequence[Heard]) -> None:
        """Every text into the file that `--texts` names, a JSON object a line."""
        if self.options.texts is None:
            return
        how = {"part": case.part, "codec": case.codec, "condition": case.condition, "hint": case.hint}
        with self.options.texts.open("a", encoding="utf-8") as lines:
            for utterance, one in zip(case.utterances, heard, strict=True):
                what = {"kind": utterance.kind, "speaker": utterance.speaker, "seconds": round(one.seconds, 2)}
                row = {**how, **asdict(system), **what, "said": utterance.text, **asdict(one.transcript)}
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")

    @staticmethod
    def _figures(case: Case, heard: Sequence[Heard], references: Sequence[Heard]) -> Iterator[tuple[str, Row]]:
        if case.part == AGREEMENT:
            yield case.name, figures.of_agreement(case.utterances, heard, references)
            return
        for kind, places in figures.by_kind(case.utterances).items():
            utterances, own = [case.utterances[place] for place in places], [heard[place] for place in places]
            if case.part == SOUNDS:
                yield kind, figures.of_sounds(own)
            else:
                yield kind, FIGURES[case.part](utterances, own)
        if case.part == SOUNDS:
            yield figures.ALL, figures.of_sounds(heard)

    # --- Manifests ----------------------------------------------------------------------------------------------------

    def _read(self, manifest: Path, needs: Sequence[str] = (PATH, SPEAKER)) -> list[Utterance]:
        return of_readers(manifest, self.options.readers, needs)

    def _speech(self) -> list[Path]:
        return self._manifests("speech", SPEECH_MANIFESTS)

    def _of_agreement(self) -> list[Path]:
        return self._manifests("agreement", AGREEMENT_MANIFESTS)

    def _manifests(self, option: str, names: Sequence[str]) -> list[Path]:
        """Those of the command line, or the ones that are in AMSER_DATA's folder."""
        given: list[Path] | None = getattr(self.options, option)
        if given:
            return given
        files = [file for name in names if (file := data_file(name)) and file.is_file()]
        if not files:
            raise CannotBegin(f"no manifest: set {DATA} to a folder that holds {names[0]}, or give --{option} TSV")
        return files

    def _noise_manifest(self) -> Path | None:
        file = self.options.noise or data_file(NOISE)
        return file if self.options.noise or (file and file.is_file()) else None

    def _noise(self) -> list[Path]:
        manifest = self._noise_manifest()
        return recordings_of(manifest, self.options.readers) if manifest else []

    def _conditions(self) -> list[Condition]:
        """Raises CannotBegin where noise is named and there is none."""
        wanted = [Condition.parse(name) for name in self.options.conditions or CONDITIONS]
        if self._noise_manifest():
            return wanted
        if self.options.conditions and any(each.kind != CLEAN for each in wanted):
            raise CannotBegin(f"--conditions needs recordings: --noise TSV, or {NOISE} in the folder {DATA}")
        return [each for each in wanted if each.kind == CLEAN]

    def _some_of_each(self, utterances: Sequence[Utterance]) -> list[Utterance]:
        """At most `--limit` of each kind."""
        return [
            utterances[place]
            for places in figures.by_kind(utterances).values()
            for place in thinned(places, self.options.limit)
        ]


FIGURES: Final = {
    SENTENCES: figures.of_sentences,
    REPEATS: figures.of_repeats,
    RECORDINGS: figures.of_words,
}


def false_silence(rows: Sequence[Row]) -> list[Row]:
    """Rows of how much clean, uncompressed speech came out empty."""
    spoken = [
        row
        for row in rows
        if row["part"] in (SENTENCES, RECORDINGS, AGREEMENT)
        and (row["codec"], row["condition"]) == ("none", CLEAN)
        and row["hint"] != "wrong"
        and row["context"] != REFERENCE
    ]
    return [{"part": FALSE_SILENCE, **row} for row in figures.false_silence(spoken)]


@command.benchmark("words")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = _parser()
    options = command.parse(parser, arguments)
    try:
        for codec in options.codec or ():
            CodecSetting.parse(codec)
        for condition in options.conditions or ():
            if Condition.parse(condition).kind == "babble":
                raise ValueError(f"condition {condition!r}: expected clean, noise-5db or another number of decibels")
    except ValueError as error:
        parser.error(str(error))
    for weights in (*options.weights, options.reference_weights):
        folder_of(weights)
    if options.texts:
        options.texts.write_text("", encoding="utf-8")
    bench = Bench(options)
    rows: list[Row] = []
    for part in options.only:
        for measured in bench.rows(part):
            rows += measured
            _write(options, [*rows, *false_silence(rows)])
    console = output()
    for table in tables([*rows, *false_silence(rows)]):
        console.print(table)


def _write(options: argparse.Namespace, rows: Sequence[Row]) -> None:
    about = {"reference_weights": options.reference_weights, "readers": options.readers, "limit": options.limit}
    write_rows(options.json, rows, **about, seed=options.seed, batch_size=options.batch_size)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("words", __doc__)
    add = partial(parser.add_argument)
    weights = "in the catalogue, or a folder in CTranslate2's format"
    add("--weights", nargs="+", default=["whisper-base"], metavar="NAME", help=f"{weights} (default: whisper-base)")
    add("--context", choices=get_args(Context), nargs="+", default=["short"], help="default: short")
    add(
        "--reference-weights",
        default="whisper-base",
        metavar="NAME",
        help="whose padded text is agreed with (%(default)s)",
    )
    add("--only", choices=PARTS, nargs="+", default=PARTS, help="default: all parts")
    add(
        "--readers",
        type=count,
        nargs="+",
        default=READERS,
        metavar="FOLD",
        help="folds, of noises too (default: 5)",
    )
    add("--limit", type=count, default=LIMIT, metavar="N", help="every k-th of a set, N at most (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="of voice, joins and sounds (default: %(default)s)")
    add("--codec", nargs="+", metavar="C", help=f"default: {' '.join(CODECS)} for recordings, fewer for other parts")
    add("--conditions", nargs="+", metavar="C", help=f"of recordings (default: {' '.join(CONDITIONS)})")
    add("--speech", type=Path, nargs="+", metavar="TSV", help=f"path, speaker, text ({' '.join(SPEECH_MANIFESTS)})")
    names = " ".join(AGREEMENT_MANIFESTS)
    add("--agreement", type=Path, nargs="+", metavar="TSV", help=f"path and speaker, better also language ({names})")
    spoken = "phrases in each of five languages that taught nothing, by synthetic voices (default: none)"
    add("--languages", type=count, metavar="N", help=spoken)
    add("--noise", type=Path, metavar="TSV", help=f"recordings, a column path (default: {NOISE} in the folder {DATA})")
    add("--texts", type=Path, metavar="FILE", help="where every text goes, a JSON object a line (default: nowhere)")
    add("--batch-size", type=count, default=BATCH_SIZE, metavar="N", help="texts decoded together (%(default)s)")
    add("--threads", type=count, default=1, metavar="N", help="of the recogniser (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
