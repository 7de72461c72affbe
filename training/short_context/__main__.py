"""`python -m training.short_context --manifest FILE …`: teach Whisper to decode from the speech alone.

The teacher is the same Whisper on the padded 30 s; no transcripts are needed. Speakers of fold 4 of each manifest fit
the judge of speech, those of fold 5 are left for `benchmarks.words`, and all others teach. What comes out is a folder
with `adapter.safetensors` and `speech.json`, from which the weight catalogue makes the model.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from whisper.tokenizer import get_tokenizer

from models.weights import UnknownModel, WeightsMissing, cache_folder, model_path
from models.weights.sources import sha256_of
from models.whisper.adapter import adapt
from models.whisper.conversion import load_openai_whisper
from models.whisper.ctranslate2_engine import CTranslate2Engine
from models.whisper.judge import FILE, OF_OTHER_WEIGHTS, Judge
from models.whisper.recognizer import WhisperRecognizer
from training.corpora.manifest import ManifestError
from training.data.waveform_augmentation import WaveformAugmentation
from training.outputs import RUNS, OutputExists, new_file
from training.short_context.adapter import RANK, AdaptersDiffer, average
from training.short_context.clips import FOLDS, LANGUAGE, Clip, read_clips, read_prompts, some_of_each
from training.short_context.fitting import LEARNING_RATE, Fit, fit
from training.short_context.judging import fit_judge, items_of
from training.short_context.languages import phrases_in_languages, speak_languages
from training.short_context.samples import Samples
from training.short_context.sounds import recordings_in
from training.short_context.spoken import phrases, speak
from training.short_context.teacher import believed, lessons_of

ADAPTER: Final = "adapter.safetensors"
MODEL: Final = "model.bin"
UNTOUCHED: Final = "untouched"
FITTING: Final = 4  # fold of the judge
REPORTED: Final = 5  # fold of the benchmarks
TEACHING_SOUNDS: Final = (1, 2, 3)  # folds of the recordings in which nobody speaks
MOST_JUDGED: Final = 60  # clips of a corpus
JUDGED_IN_LANGUAGES: Final = 4  # phrases in each language
SOUNDS: Final = 600  # that the judge is fitted on
AUGMENTATION: Final = WaveformAugmentation(
    pitch=0.2, stretch=0.3, noise=0.2, gain=0.3, reverberation=0.4, equalizer=0.3, telephone=0.25, far=0.2
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    adapter, speech = options.output / ADAPTER, options.output / FILE
    teaches, adapted = options.judge_only is None, options.judge_only != UNTOUCHED
    try:
        for file in (adapter, speech) if teaches else (speech,):
            new_file(file, options.force)
        model = model_path(options.weights)
        options.output.mkdir(parents=True, exist_ok=True)
        if teaches and options.average:
            average(options.average, adapter)
        elif teaches:
            _teach(options, adapter)
        with TemporaryDirectory() as folder:
            if adapted:
                model = adapted_model(model, adapter, Path(folder))
            judge = _fitted_judge(options, model)
            speech.write_text(json.dumps({"hears_short": adapted, "judge": asdict(judge)}, indent=1) + "\n")
            if adapted:
                shutil.copyfile(speech, model / FILE)
                Console().print(_catalogue_lines(model), highlight=False)
    except (ManifestError, OutputExists, UnknownModel, WeightsMissing, AdaptersDiffer, FileNotFoundError) as error:
        print(f"training.short_context: {error}", file=sys.stderr)
        return 2
    return 0


def _catalogue_lines(model: Path) -> str:
    """The files of the adapted model, as the weight catalogue names them."""
    lines = ["    files:"]
    for file in sorted(model.iterdir()):
        lines += [
            f"      - path: {file.name}",
            f"        bytes: {file.stat().st_size}",
            f"        sha256: {sha256_of(file)}",
        ]
    return "\n".join(lines)


def _teach(options: argparse.Namespace, adapter: Path) -> None:
    """The adapter."""
    given = read_clips(options.manifest)
    clips = [clip for clip in given if clip.fold not in (FITTING, REPORTED)]
    texts = [clip.text for clip in clips if clip.text and clip.language == LANGUAGE]
    clips = some_of_each(clips, options.most, options.seed)
    clips += some_of_each(read_prompts(options.prompts), options.most_prompts, options.seed)
    if options.spoken:
        clips += speak(phrases(texts, options.spoken, options.seed), cache_folder() / "short-context" / "spoken")
    if options.languages:
        clips += _spoken_in_languages(options, options.languages, options.seed)
    lessons = lessons_of(clips, options.weights, options.threads)
    pairs = [(clip, lesson) for clip, lesson in zip(clips, lessons, strict=True) if lesson]
    taught = [clip for clip, lesson in pairs if believed(lesson)]
    if not taught:
        raise ManifestError("the teacher believes no text of these recordings, so there is nothing to learn")
    Console().print(_table(clips, taught))
    model = load_openai_whisper(model_path(options.weights))
    samples = Samples(
        [clip for clip, _ in pairs],
        [lesson for _, lesson in pairs],
        [file for fold in TEACHING_SOUNDS for file in sounds_of(options.noise, fold)],
        AUGMENTATION,
        get_tokenizer(True, num_languages=model.num_languages),
    )
    settings = Fit(options.steps, options.learning_rate, RANK, options.seed)
    fit(model, samples.drawn(np.random.default_rng(options.seed)), settings, adapter)


def _spoken_in_languages(options: argparse.Namespace, many: int, seed: int) -> list[Clip]:
    folder = cache_folder() / "short-context" / "languages"
    return speak_languages(phrases_in_languages(many, seed), folder, options.threads)


def _fitted_judge(options: argparse.Namespace, model: Path) -> Judge:
    """The judge of the weights in a folder."""
    clips = [clip for clip in read_clips(options.manifest) if clip.fold == FITTING]
    clips = some_of_each(clips, MOST_JUDGED, options.seed)
    if options.languages:  # by the voices that teach, but other phrases
        clips += _spoken_in_languages(options, JUDGED_IN_LANGUAGES, options.seed + 1)
    lessons = lessons_of(clips, options.weights, options.threads)
    tokenizer = get_tokenizer(True)
    heard = [
        (clip, tokenizer.decode(lesson.tokens.tolist()))
        for clip, lesson in zip(clips, lessons, strict=True)
        if lesson and believed(lesson)
    ]
    if not heard:
        raise ManifestError(f"the teacher believes no text of fold {FITTING}, so no judge can be fitted")
    recognizer = WhisperRecognizer(CTranslate2Engine(model))
    draw = np.random.default_rng(options.seed)
    clips, texts = [clip for clip, _ in heard], [text for _, text in heard]
    items = items_of(clips, texts, sounds_of(options.noise, FITTING), SOUNDS, draw)
    return fit_judge(recognizer, items)


def adapted_model(model: Path, adapter: Path, folder: Path) -> Path:
    """A folder of a model with an adapter put on it, for trials; the judge is that of other weights."""
    for file in model.iterdir():
        if file.name != MODEL and not file.name.startswith(".") and file.is_file():  # nor the store's own notes
            shutil.copyfile(file, folder / file.name)
    adapt(model / MODEL, adapter, folder / MODEL)
    judge = json.loads(OF_OTHER_WEIGHTS.read_text()) | {"hears_short": True}
    (folder / FILE).write_text(json.dumps(judge))
    return folder


def sounds_of(folder: Path | None, fold: int) -> list[Path]:
    """Every fifth recording of a folder, for each fold others."""
    return recordings_in(folder)[fold - 1 :: FOLDS] if folder else []


def _table(clips: Sequence[Clip], believed_clips: Sequence[Clip]) -> Table:
    table = Table("corpus", "clips", "whose text teaches", title="What teaches")
    heard, kept = (Counter(clip.corpus for clip in some) for some in (clips, believed_clips))
    for corpus in sorted(heard):
        table.add_row(corpus, str(heard[corpus]), str(kept[corpus]))
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.short_context",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--manifest", type=Path, nargs="+", required=True, metavar="FILE", help="speech: path, speaker, language, fold")
    add("--prompts", type=Path, nargs="*", default=[], metavar="DIR", help="prompts of one voice, as fr_CA_f_June")
    add("--noise", type=Path, metavar="DIR", help="recordings in which nobody speaks")
    add("--spoken", type=int, default=300, metavar="N", help="phrases of a synthetic voice (%(default)s; 0: none)")
    add("--languages", type=int, default=20, metavar="N", help="phrases in each of 52 languages (%(default)s; 0: none)")
    add("--most", type=int, default=330, metavar="N", help="clips of a corpus (default: %(default)s)")
    add("--most-prompts", type=int, default=140, metavar="N", help="prompts of a voice (default: %(default)s)")
    add("--weights", default="whisper-base", metavar="NAME", help="in the weight catalogue (default: %(default)s)")
    add("--steps", type=int, default=2400, metavar="N", help="of the optimiser (default: %(default)s)")
    add("--learning-rate", type=float, default=LEARNING_RATE, metavar="RATE", help="default: %(default)s")
    add("--seed", type=int, default=0, metavar="N", help="of everything that is drawn (default: %(default)s)")
    add("--threads", type=int, default=2, metavar="N", help="of the student; processes of the teacher (%(default)s)")
    add("--output", type=Path, default=RUNS / "short-context", metavar="DIR", help="default: %(default)s")
    mean = "do not teach: take the mean of the adapters of other runs (with other --seed, say), and fit its judge"
    add("--average", type=Path, nargs="+", metavar="ADAPTER", help=mean)
    add(
        "--judge-only",
        choices=("adapted", UNTOUCHED),
        help="fit the judge alone: of the adapter that is in the folder, or of the weights as they are",
    )
    add("--force", action="store_true", help="replace the files of an earlier run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
