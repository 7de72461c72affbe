"""Rate control: what a device measures of the noise, and that each thing it knows moves the step one way only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from recordings import Waveform, rows, speakers, waveform_of

from amser import codecs
from amser.client.rate_control import (
    KBIT_S,
    SNR_LIMITS_DB,
    Bounds,
    Choice,
    Conditions,
    choose,
    estimate_snr_db,
    kbit_s,
)
from amser.codecs.klt import COARSEST, PROFILES
from amser.features import log_mel
from amser.rate_hint import RateHint, Reason
from edge_sim.hardware import load_hardware
from edge_sim.link import LoRaLink

SNRS_DB = (0, 5, 10, 15, 20)
TOLERANCE_DB = 5.0  # of the mean over speakers
LOW, STANDARD, ROBUST = (PROFILES[name] for name in ("low", "standard", "robust"))
NOISES = ("white", "babble", "rain", "sea_waves", "helicopter")
ANYTHING = Bounds(0, COARSEST)

# --- What is measured ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def speech() -> list[Waveform]:
    return [waveform_of(row["path"]) for row in speakers(8)]


@pytest.fixture(scope="module")
def noises() -> dict[str, Callable[[int], NDArray[np.float64]]]:
    """So many samples of each."""
    recorded = {row["label"]: row["path"] for row in rows("noise/esc10.tsv")}
    others = [waveform_of(row["path"]) for row in speakers(16)[8:]]

    def long_enough(waveform: Waveform, samples: int) -> NDArray[np.float64]:
        return np.resize(waveform.astype(np.float64), samples)

    def babble(samples: int) -> NDArray[np.float64]:
        voices = [long_enough(other, samples) for other in others]
        return np.sum([voice / voice.std() for voice in voices], axis=0)

    def played(label: str) -> Callable[[int], NDArray[np.float64]]:
        return lambda samples: long_enough(waveform_of(recorded[label]), samples)

    made = {"white": np.random.default_rng(0).standard_normal, "babble": babble}
    return {name: made.get(name) or played(name) for name in NOISES}


def mixed(speech: Waveform, noise: NDArray[np.float64], snr_db: float) -> Waveform:
    """Both over the whole utterance, by their mean power."""
    gain = np.sqrt(np.mean(speech.astype(np.float64) ** 2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    return (speech + gain * noise).astype(np.float32)


@pytest.mark.parametrize("noise", NOISES)
def test_the_estimate_follows_the_noise(
    speech: list[Waveform], noises: dict[str, Callable[[int], NDArray[np.float64]]], noise: str
) -> None:
    by_speaker = np.array(
        [
            [estimate_snr_db(log_mel(mixed(said, noises[noise](said.size), snr_db))) for snr_db in SNRS_DB]
            for said in speech
        ]
    )
    assert (np.diff(by_speaker, axis=1) > 0).all()
    assert np.abs(by_speaker.mean(axis=0) - SNRS_DB).max() < TOLERANCE_DB


def test_clean_speech_is_far_above_its_noise(speech: list[Waveform]) -> None:
    estimates = [estimate_snr_db(log_mel(said)) for said in speech]
    assert min(estimates) > 15
    assert np.mean(estimates) > 22


def test_the_floor_of_the_log_mel_makes_no_difference(speech: list[Waveform]) -> None:
    for said in speech:
        clamped, unclamped = (estimate_snr_db(log_mel(said, clamp=clamp)) for clamp in (True, False))
        assert clamped == pytest.approx(unclamped, abs=0.5)


def test_the_level_of_the_microphone_makes_no_difference(speech: list[Waveform]) -> None:
    quiet = estimate_snr_db(log_mel(np.float32(0.1) * speech[0]))
    assert quiet == pytest.approx(estimate_snr_db(log_mel(speech[0])), abs=0.1)


def test_an_estimate_has_an_end_on_either_side() -> None:
    steady = np.full((80, 50), -1.5, np.float32)
    assert estimate_snr_db(steady) == SNR_LIMITS_DB[0]
    steady[:, 25] = 16.0
    assert estimate_snr_db(steady) == SNR_LIMITS_DB[1]


def test_the_rates_are_those_of_real_speech(speech: list[Waveform]) -> None:
    mels = [log_mel(said) for said in speech]
    seconds = sum(mel.shape[1] for mel in mels) / 100
    for step in KBIT_S:
        bits = sum(8 * len(codecs.encode(mel, "klt", step=step).payload) for mel in mels)
        assert kbit_s(step) == pytest.approx(bits / seconds / 1000, rel=0.3), step


# --- What follows from it ---------------------------------------------------------------------------------------------

hints = st.builds(RateHint, st.integers(0, COARSEST), st.sampled_from([*Reason, None]))
conditions = st.builds(
    Conditions,
    snr_db=st.none() | st.floats(-20, 80),
    uplink_bit_s=st.none() | st.floats(1, 1e8),
    rtt_ms=st.floats(0, 5_000),
    duty_cycle=st.floats(0.001, 1),
    metered=st.booleans(),
    battery=st.none() | st.floats(0, 1),
    hint=st.none() | hints,
)
bounds = st.tuples(st.integers(0, COARSEST), st.integers(0, COARSEST)).map(lambda ends: Bounds(min(ends), max(ends)))


@given(conditions, bounds)
def test_the_choice_is_within_the_bounds_and_says_why(known: Conditions, within: Bounds) -> None:
    choice = choose(known, within)
    assert within.finest <= choice.step <= within.coarsest
    assert choice.reason.endswith(".")
    assert choose(known, within) == choice


def never_finer(known: Conditions, within: Bounds, **coarser: object) -> None:
    assert choose(replace(known, **coarser), within).step >= choose(known, within).step


@given(conditions, bounds, st.floats(-20, 80), st.floats(0, 60))
def test_less_noise_never_makes_it_finer(known: Conditions, within: Bounds, snr_db: float, more: float) -> None:
    never_finer(replace(known, snr_db=snr_db), within, snr_db=snr_db + more)


@given(conditions, bounds, st.floats(1, 1e8), st.floats(0.01, 1))
def test_a_slower_link_never_makes_it_finer(known: Conditions, within: Bounds, bit_s: float, share: float) -> None:
    never_finer(replace(known, uplink_bit_s=bit_s), within, uplink_bit_s=bit_s * share)


@given(conditions, bounds, st.floats(0, 5_000))
def test_a_longer_round_trip_never_makes_it_finer(known: Conditions, within: Bounds, more_ms: float) -> None:
    never_finer(known, within, rtt_ms=known.rtt_ms + more_ms)


@given(conditions, bounds, st.floats(0.01, 1))
def test_a_smaller_duty_cycle_never_makes_it_finer(known: Conditions, within: Bounds, share: float) -> None:
    never_finer(known, within, duty_cycle=known.duty_cycle * share)


@given(conditions, bounds)
def test_a_metered_link_never_makes_it_finer(known: Conditions, within: Bounds) -> None:
    never_finer(replace(known, metered=False), within, metered=True)


@given(conditions, bounds, st.floats(0, 1), st.floats(0, 1))
def test_an_emptier_battery_never_makes_it_finer(
    known: Conditions, within: Bounds, battery: float, share: float
) -> None:
    never_finer(replace(known, battery=battery), within, battery=battery * share)


@given(conditions, bounds, hints, st.integers(0, COARSEST))
def test_a_coarser_hint_of_the_same_reason_never_makes_it_finer(
    known: Conditions, within: Bounds, hint: RateHint, more: int
) -> None:
    coarser = RateHint(min(hint.step + more, COARSEST), hint.reason)
    never_finer(replace(known, hint=hint), within, hint=coarser)


@given(conditions, bounds, st.integers(0, COARSEST))
def test_a_hint_of_noise_or_load_moves_it_one_way_only(known: Conditions, within: Bounds, step: int) -> None:
    alone = choose(replace(known, hint=None), within).step
    assert choose(replace(known, hint=RateHint(step, Reason.NOISE)), within).step <= alone
    assert choose(replace(known, hint=RateHint(step, Reason.BUSY)), within).step >= alone


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (Conditions(), Choice(STANDARD, "nothing is known of the noise.")),
        (Conditions(snr_db=30), Choice(LOW, "the speech is 30 dB above the noise.")),
        (Conditions(snr_db=8), Choice(ROBUST, "the speech is 8 dB above the noise.")),
        (Conditions(snr_db=8, metered=True), Choice(STANDARD, "every byte of the link is paid for.")),
        (Conditions(snr_db=8, battery=0.05), Choice(LOW, "the battery is at 5 %.")),
        (Conditions(snr_db=8, battery=0.8), Choice(ROBUST, "the speech is 8 dB above the noise.")),
        (Conditions(hint=RateHint(20, Reason.NOISE)), Choice(20, "the cluster asked for step=20;reason=noise.")),
        (
            Conditions(hint=RateHint(2, Reason.NOISE)),
            Choice(ROBUST, f"the cluster asked for step=2;reason=noise, but the bounds are {ROBUST} to {LOW + 8}."),
        ),
        (
            Conditions(snr_db=8, hint=RateHint(22, Reason.CLEAR)),
            Choice(22, "the cluster asked for step=22;reason=clear."),
        ),
        (
            Conditions(snr_db=30, hint=RateHint(34, Reason.BUSY)),
            Choice(34, "the cluster asked for step=34;reason=busy."),
        ),
    ],
)
def test_what_decides_is_named(known: Conditions, expected: Choice) -> None:
    assert choose(known) == expected


def test_a_clear_hint_from_a_quiet_room_does_not_outlive_it_in_the_street() -> None:
    """It outdoes what the device measures by one profile and no more."""
    assert choose(Conditions(snr_db=5, hint=RateHint(LOW, Reason.CLEAR))).step < LOW


@pytest.mark.parametrize("device", ["phone", "speaker", "ear-bud"])
def test_the_links_of_phones_speakers_and_ear_buds_carry_the_finest_step(device: str) -> None:
    link = load_hardware(device).radio().link
    bit_s = 1e6 * float(getattr(link, "uplink_mbit_s", 0) or link.phy_mbit_s / 10)  # type: ignore[attr-defined]
    assert choose(Conditions(snr_db=5, uplink_bit_s=bit_s, rtt_ms=link.rtt_ms)).step == ROBUST


def test_lora_gets_the_coarsest_step_that_is_allowed() -> None:
    link = load_hardware("lora-sensor").radio().link
    assert isinstance(link, LoRaLink)
    known = Conditions(snr_db=5, uplink_bit_s=5_470, rtt_ms=link.rtt_ms, duty_cycle=link.duty_cycle_percent / 100)
    assert choose(known).step == Bounds().coarsest
    assert choose(known).reason.startswith("the link carries 0.011 kbit for a second of speech, but the bounds")
    assert choose(known, ANYTHING).step == COARSEST


def test_what_is_written_of_a_step_keeps_to_the_link() -> None:
    for uplink_bit_s in (2_000, 8_000, 30_000):
        step = choose(Conditions(snr_db=0, uplink_bit_s=uplink_bit_s), ANYTHING).step
        assert 1_000 * kbit_s(step) * 5.0 <= uplink_bit_s  # five seconds of speech within one


@pytest.mark.parametrize(
    "wrong",
    [
        {"snr_db": float("nan")},
        {"uplink_bit_s": 0},
        {"rtt_ms": -1},
        {"duty_cycle": 0},
        {"duty_cycle": 1.1},
        {"battery": 80},
    ],
)
def test_conditions_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Conditions(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("finest", "coarsest"), [(20, 10), (-1, 10), (10, COARSEST + 1)])
def test_bounds_that_hold_nothing_are_refused(finest: int, coarsest: int) -> None:
    with pytest.raises(ValueError, match="the bounds are"):
        Bounds(finest, coarsest)
