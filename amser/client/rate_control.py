"""How finely `klt` writes the next utterance: from the noise, the link, the battery and the hint of the cluster.

`choose` is a function of what is known now, without a memory. Noise wants a finer step: in babble 10 dB below the voice
Whisper base misses 12 % of the words at `robust` where it misses 10 % of the log-Mel's own; clean speech at `low` 5.3 %
against 4.2 %. The bits that a step takes hardly depend on noise, by a sixth
between 0 dB and clean, so a link allows the same steps in noise and in quiet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from types import MappingProxyType
from typing import Final

import numpy as np

from amser.codecs.klt import COARSEST, DEFAULT_PROFILE, PROFILES
from amser.features import LOG_SCALE, Float32
from amser.rate_hint import RateHint, Reason

LOW, STANDARD, ROBUST = PROFILES["low"], PROFILES["standard"], PROFILES["robust"]

NOISE_PERCENTILE: Final = 20  # of the frames' loudness: the pauses of speech, where only noise is left
SNR_LIMITS_DB: Final = (-10.0, 60.0)  # beyond them an estimate says no more than that
NOISY_DB: Final = 12.0  # up to this estimate every bit up to `robust` pays
QUIET_DB: Final = 24.0  # from this estimate on `low` is enough

# kbit/s of clean speech by step index (LibriSpeech); between them the logarithm is linear
KBIT_S: Final = MappingProxyType(
    {
        0: 14.2,
        4: 10.8,
        8: 8.4,
        12: 6.6,
        16: 4.9,
        20: 3.5,
        24: 2.4,
        28: 1.67,
        32: 1.15,
        36: 0.79,
        40: 0.54,
        44: 0.37,
        48: 0.25,
        56: 0.12,
    }
)
UTTERANCE_S: Final = 5.0  # a usual one
SENDING_S: Final = 1.0  # such an utterance is to be with the cluster by then, the round trip included
LEAST_SENDING_S: Final = 0.25  # for the bytes alone, where the round trip takes most of it: fewer would not help

FULL_ENOUGH: Final = 0.3  # share of the battery above which nothing is saved
NEARLY_EMPTY: Final = 0.1  # below it nothing finer than `low`
REACH: Final = 8  # steps, about a profile: how much coarser a hint `clear` makes the step that the device would take


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a device knows when it encodes. None: not known, and of no influence.

    Attributes:
        snr_db: see `estimate_snr_db`.
        uplink_bit_s: throughput of the link upwards, above 0.
        rtt_ms: round trip.
        duty_cycle: share of the time in which the device may send, above 0 up to 1; 0.01 for LoRa at 868 MHz.
        metered: every byte is paid for.
        battery: share of a full one, 0 to 1; None on the mains.
        hint: the last that the cluster gave.

    Raises:
        ValueError: a number that is none of these.
    """

    snr_db: float | None = None
    uplink_bit_s: float | None = None
    rtt_ms: float = 0.0
    duty_cycle: float = 1.0
    metered: bool = False
    battery: float | None = None
    hint: RateHint | None = None

    def __post_init__(self) -> None:
        for name, holds in (  # written so that NaN, which compares false, is refused too
            ("snr_db", self.snr_db is None or abs(self.snr_db) < np.inf),
            ("uplink_bit_s", self.uplink_bit_s is None or self.uplink_bit_s > 0),
            ("rtt_ms", self.rtt_ms >= 0),
            ("duty_cycle", 0 < self.duty_cycle <= 1),
            ("battery", self.battery is None or 0 <= self.battery <= 1),
        ):
            if not holds:
                raise ValueError(f"{name} is {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Steps that may be chosen.

    Attributes:
        finest: index. Finer than `robust` is twice the bits for words that are lost to the noise all the same.
        coarsest: index. Eight steps past `low` the bits are halved, and more words than those of noise are missed.

    Raises:
        ValueError: there are no such steps, or none between them.
    """

    finest: int = ROBUST
    coarsest: int = LOW + 8

    def __post_init__(self) -> None:
        if not 0 <= self.finest <= self.coarsest <= COARSEST:
            limit = f"0 to {COARSEST}, the finest first"
            raise ValueError(f"the bounds are {self.finest} and {self.coarsest}; accepted: {limit}")


@dataclass(frozen=True, slots=True)
class Choice:
    """A step and what decided it.

    Attributes:
        step: index, as `amser.codecs.encode` takes it.
        reason: one sentence.
    """

    step: int
    reason: str


def choose(conditions: Conditions, bounds: Bounds = Bounds()) -> Choice:  # noqa: B008 - frozen
    """The step for the next utterance: what the words need, unless link or battery allow less.

    Monotone in each argument, all others equal: never finer for a higher SNR, a slower link, a longer round trip, a
    smaller duty cycle, a metered link, an emptier battery, or a hint of the same reason that names a coarser step.
    """
    step, reason = max(_demands(conditions), key=itemgetter(0))  # of equal ones the first
    within = min(max(step, bounds.finest), bounds.coarsest)
    if within != step:
        reason += f", but the bounds are {bounds.finest} to {bounds.coarsest}"
    return Choice(within, f"{reason}.")


def estimate_snr_db(log_mel: Float32) -> float:
    """How far speech is above the noise: mean loudness of the frames against that of the quietest fifth.

    Of speech with noise mixed in at 0 to 20 dB (white, babble, rain, sea, a helicopter) the estimate's mean over
    speakers is within 5 dB of the truth, and speech without any comes to 17 to 45 dB: a studio is never quite silent.
    Speech without pauses seems noisier than it is, which costs bits and no words.

    Args:
        log_mel: shape (bands, frames), in Whisper's scale, clamped or not: the floor of eight decades lies deeper than
            any room's noise.

    Returns:
        Decibels, within `SNR_LIMITS_DB`; the lower one where no frame is louder than another.
    """
    power = np.power(10.0, LOG_SCALE * log_mel.astype(np.float64))  # up to a factor, which cancels
    loudness = power.sum(axis=0)  # (frames,)
    noise = np.percentile(loudness, NOISE_PERCENTILE)
    lowest, highest = SNR_LIMITS_DB
    ratio = (loudness.mean() - noise) / noise
    return float(np.clip(10 * np.log10(max(ratio, 10 ** (lowest / 10))), lowest, highest))


def kbit_s(step: int) -> float:
    """What `klt` needs for clean speech at this step, about."""
    return float(np.exp(np.interp(step, list(KBIT_S), np.log(list(KBIT_S.values())))))


def _demands(conditions: Conditions) -> Iterator[tuple[int, str]]:
    """What the words need; then, for each thing that is scarce, the finest step that it allows."""
    yield _for_the_words(conditions.snr_db, conditions.hint)
    if conditions.uplink_bit_s is not None:
        yield _for_the_link(conditions.uplink_bit_s * conditions.duty_cycle, conditions.rtt_ms)
    if conditions.metered:
        yield STANDARD, "every byte of the link is paid for"
    if conditions.battery is not None and conditions.battery < FULL_ENOUGH:
        step = round(float(np.interp(conditions.battery, (NEARLY_EMPTY, FULL_ENOUGH), (LOW, 0))))
        yield step, f"the battery is at {100 * conditions.battery:.0f} %"


def _for_the_words(snr_db: float | None, hint: RateHint | None) -> tuple[int, str]:
    if snr_db is None:
        step, reason = PROFILES[DEFAULT_PROFILE], "nothing is known of the noise"
    else:
        step = round(float(np.interp(snr_db, (NOISY_DB, QUIET_DB), (ROBUST, LOW))))
        reason = f"the speech is {snr_db:.0f} dB above the noise"
    if hint is None:
        return step, reason
    asked = {
        Reason.NOISE: min(step, hint.step),
        Reason.CLEAR: min(hint.step, step + REACH),
        Reason.BUSY: max(step, hint.step),
        None: hint.step,
    }[hint.reason]
    return (step, reason) if asked == step else (asked, f"the cluster asked for {hint}")


def _for_the_link(bit_s: float, rtt_ms: float) -> tuple[int, str]:
    seconds = max(LEAST_SENDING_S, SENDING_S - rtt_ms / 1000)
    affordable = bit_s * seconds / UTTERANCE_S / 1000  # kbit/s of speech
    step = next((step for step in range(COARSEST) if kbit_s(step) <= affordable), COARSEST)
    return step, f"the link carries {affordable:.2g} kbit for a second of speech"
