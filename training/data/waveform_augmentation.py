"""Changes to a waveform that leave its emotion as it was: the voice's pitch and tempo, noise, gain, and the channel.

Pitch, tempo, noise and gain are the paper's (R20); room, equaliser, telephone and distance make a recording's channel
say less about its corpus. audiomentations does all but the room.

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
from typing import Any

import audiomentations
import numpy as np
import soundfile
from numpy.typing import NDArray

from amser.features import MINIMUM_SECONDS, SAMPLE_RATE, validate
from models.emotion.batch import MAXIMUM_SECONDS
from training.data.reverberation import Reverberation

Float32 = NDArray[np.float32]
Range = tuple[float, float]

LOG = logging.getLogger(__name__)
MINIMUM_SAMPLES = int(MINIMUM_SECONDS * SAMPLE_RATE)
MAXIMUM_SAMPLES = int(MAXIMUM_SECONDS * SAMPLE_RATE)
TELEPHONE_ROLLOFF = (36, 60)  # decibels an octave beyond the edges of its band
SOUND_FILES = (".flac", ".mp3", ".ogg", ".opus", ".wav")


@dataclass(frozen=True, slots=True)
class WaveformAugmentation:
    """How often and how far each change goes: first the voice, then the room, noise, the microphone and the line.

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
        reverberation: probability of a room (`training.data.reverberation`), before the noise.
        reverberation_seconds: shortest and longest time in which its sound decays by 60 dB.
        direct_decibels: lowest and highest ratio of the direct sound to what the room adds.
        equalizer: probability of another smooth frequency response, of seven bands.
        equalizer_decibels: lowest and highest gain of a band.
        telephone: probability of a telephone's band.
        telephone_low: lowest and highest lower edge of that band in hertz.
        telephone_high: the same of its upper edge.
        far: probability of a level as from a distance, on top of `gain`.
        far_decibels: lowest and highest gain of it.

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
    reverberation: float = 0.0
    reverberation_seconds: Range = (0.15, 0.9)
    direct_decibels: Range = (-6.0, 12.0)
    equalizer: float = 0.0
    equalizer_decibels: Range = (-8.0, 8.0)
    telephone: float = 0.0
    telephone_low: Range = (150.0, 350.0)
    telephone_high: Range = (3000.0, 3900.0)
    far: float = 0.0
    far_decibels: Range = (-35.0, 0.0)

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, float | int) and not 0 <= value <= 1:
                raise ValueError(f"probabilities lie within 0 to 1; got {name} {value}")
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"the second number of {name} must be the greater one; got {value}")
        if self.reverberation_seconds[0] <= 0:
            raise ValueError(f"reverberation_seconds must be greater than 0; got {self.reverberation_seconds}")
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
    # Changes of the channel are left out where they never happen: each would draw a number all the same, and other
    # changes than before would follow for the same seed.
    return audiomentations.Compose(
        [
            audiomentations.PitchShift(*settings.semitones, p=settings.pitch),
            audiomentations.TimeStretch(*settings.rates, leave_length_unchanged=False, p=settings.stretch),
            *_if_ever(Reverberation(settings.reverberation_seconds, settings.direct_decibels, settings.reverberation)),
            audiomentations.OneOf(noises, p=settings.noise),
            *_if_ever(audiomentations.SevenBandParametricEQ(*settings.equalizer_decibels, p=settings.equalizer)),
            *_if_ever(_telephone(settings)),
            audiomentations.Gain(*settings.decibels, p=settings.gain),
            *_if_ever(audiomentations.Gain(*settings.far_decibels, p=settings.far)),
        ]
    )


def _telephone(settings: WaveformAugmentation) -> audiomentations.Compose:
    low, high = (
        edge(*between, *TELEPHONE_ROLLOFF, p=1.0)
        for edge, between in (
            (audiomentations.HighPassFilter, settings.telephone_low),
            (audiomentations.LowPassFilter, settings.telephone_high),
        )
    )
    return audiomentations.Compose([low, high], p=settings.telephone)


def _if_ever(transform: Any) -> list[Any]:
    return [transform] if transform.p > 0 else []


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
