"""Changes to a waveform that leave its emotion as it was: noise, pitch, tempo and gain (R20), done by audiomentations.

Stands before the log-Mel, where `training.data.augmentation` stands behind it: each change costs a run of the
recogniser and the text stages, so a corpus is augmented a few times and kept, under a key that says how.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import audiomentations
import numpy as np
import soundfile
from numpy.typing import NDArray

from amser.features import MINIMUM_SECONDS, SAMPLE_RATE, validate
from models.emotion.batch import MAXIMUM_SECONDS

Float32 = NDArray[np.float32]
Range = tuple[float, float]

LOG = logging.getLogger(__name__)
MINIMUM_SAMPLES = int(MINIMUM_SECONDS * SAMPLE_RATE)
MAXIMUM_SAMPLES = int(MAXIMUM_SECONDS * SAMPLE_RATE)
SOUND_FILES = (".flac", ".mp3", ".ogg", ".opus", ".wav")


@dataclass(frozen=True, slots=True)
class WaveformAugmentation:
    """How often and how far each change goes; they follow each other as they are listed, noise and gain at the end.

    Attributes:
        pitch: probability of another pitch at the same tempo.
        semitones: lowest and highest shift.
        stretch: probability of another tempo at the same pitch.
        rates: lowest and highest factor on the speed of speech; 0.85 makes it longer.
        noise: probability of noise, either Gaussian or, as often if there is a `background`, a recording.
        gaussian_snr: lowest and highest ratio of speech to Gaussian noise in decibels; the paper's is 30.
        background: folder of recordings, such as ESC-10, of any rate and length; None for Gaussian noise alone.
        background_snr: lowest and highest ratio of speech to a recording in decibels.
        gain: probability of another level.
        decibels: lowest and highest gain.

    Raises:
        FileNotFoundError: the background is no folder, or holds no recordings.
        ValueError: a probability is not within 0 to 1, or a range is upside down.
    """

    pitch: float = 0.5
    semitones: Range = (-2.0, 2.0)
    stretch: float = 0.5
    rates: Range = (0.85, 1.18)
    noise: float = 0.5
    gaussian_snr: Range = (15.0, 40.0)
    background: Path | None = None
    background_snr: Range = (5.0, 30.0)
    gain: float = 0.5
    decibels: Range = (-8.0, 8.0)

    def __post_init__(self) -> None:
        for probability in (self.pitch, self.stretch, self.noise, self.gain):
            if not 0 <= probability <= 1:
                raise ValueError(f"probabilities lie within 0 to 1; got {self}")
        _chain(self)  # what the library refuses is refused here, not in the middle of a corpus

    def __call__(self, waveform: Float32, seed: int) -> Float32:
        """A changed copy, the same for the same seed.

        Not for several threads at once: the library draws from the global generators, which are put back afterwards.

        Args:
            waveform: float32, (n,), 16 kHz, of 0.1 s or more.
            seed: ≥ 0.

        Returns:
            float32, (m,), of 0.1 to 30 s: what is longer is cut, and silence follows what became shorter. Where it
            would leave -1 to 1, all of it is made quieter.

        Raises:
            AudioError: no log-Mel could be made of the waveform either.
        """
        samples = validate(waveform).copy()
        with _seeded(seed), warnings.catch_warnings():
            # That a recording had to be resampled, or is silent where it was cut, needs no attention.
            warnings.filterwarnings("ignore", module="audiomentations")
            samples = _chain(self)(samples=samples, sample_rate=SAMPLE_RATE)[:MAXIMUM_SAMPLES]
        samples = np.pad(samples, (0, max(0, MINIMUM_SAMPLES - len(samples))))
        return np.asarray(samples / max(1.0, float(np.abs(samples).max())), np.float32)

    def key(self) -> dict[str, object]:
        """What the result depends on besides waveform and seed, for a cache key.

        The recordings are named by their number and a digest of their names, so that a folder may move.
        """
        fields = asdict(self)
        if self.background is not None:
            names = [file.relative_to(self.background).as_posix() for file in _recordings(self.background)]
            digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
            fields["background"] = {"files": len(names), "names": digest}
        return fields | {"audiomentations": audiomentations.__version__}


@functools.cache
def _chain(settings: WaveformAugmentation) -> audiomentations.Compose:
    gaussian = audiomentations.AddGaussianSNR(*settings.gaussian_snr, p=1.0)
    noises = [gaussian]
    if settings.background is not None:
        # A sorted list, because the order in which a folder is walked differs between file systems.
        recordings = _recordings(settings.background)
        noises.append(audiomentations.AddBackgroundNoise(recordings, *settings.background_snr, p=1.0))
    return audiomentations.Compose(
        [
            audiomentations.PitchShift(*settings.semitones, p=settings.pitch),
            audiomentations.TimeStretch(*settings.rates, leave_length_unchanged=False, p=settings.stretch),
            audiomentations.OneOf(noises, p=settings.noise),
            audiomentations.Gain(*settings.decibels, p=settings.gain),
        ]
    )


def _recordings(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"background noise: there is no folder {folder}; --noise names one")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SOUND_FILES and _is_readable(file))
    if not files:
        raise FileNotFoundError(f"background noise: no recordings ({', '.join(SOUND_FILES)}) in {folder}")
    return files


def _is_readable(file: Path) -> bool:
    try:
        return bool(soundfile.info(file).frames)
    except (soundfile.SoundFileError, OSError) as error:
        LOG.warning("background noise: %s is left out: %s", file, error)
        return False


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The global generators of `random` and NumPy, seeded; afterwards they are as they were."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    python_seed, numpy_seed = np.random.SeedSequence(seed).generate_state(2)
    random.seed(int(python_seed))
    np.random.seed(int(numpy_seed))
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
