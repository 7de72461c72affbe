"""Calibration: the temperature that suits logits best, and the error of probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from training.judging.calibration import (
    TEMPERATURES,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (6000, 5))
    probabilities = softmax(logits / temperature, axis=1)
    labels = (probabilities.cumsum(1) > random.random((6000, 1))).argmax(1)
    assert fit_temperature(logits.astype(np.float32), labels) == pytest.approx(temperature, rel=0.06)


def test_a_network_that_is_never_wrong_gets_the_lowest_temperature_and_one_that_guesses_the_highest() -> None:
    logits = np.eye(4)
    low, high = TEMPERATURES
    assert fit_temperature(logits, range(4)) == pytest.approx(low, rel=0.2)
    assert fit_temperature(np.tile(logits, (4, 1)), np.repeat(range(4), 4)) == pytest.approx(high, rel=0.2)


def test_the_error_is_that_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.65, 0.35], [0.35, 0.65]])
    # Bin 0.9 to 1: sure 0.9, right 1 of 1. Bin 0.6 to 0.7: sure 0.65, right 1 of 2, and it weighs twice.
    assert expected_calibration_error(probabilities, [0, 1, 1], bins=10) == pytest.approx((0.1 + 2 * 0.15) / 3)


def test_answers_that_are_sure_and_right_have_no_error_and_sure_and_wrong_all_of_it() -> None:
    assert expected_calibration_error(np.eye(3), [0, 1, 2]) == 0
    assert expected_calibration_error(np.eye(3), [1, 2, 0]) == 1


def test_calibrated_answers_have_an_error_near_zero_and_sharpened_ones_do_not() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, (20_000, 4))
    probabilities = softmax(logits, axis=1)
    labels = (probabilities.cumsum(1) > random.random((20_000, 1))).argmax(1)
    assert expected_calibration_error(probabilities, labels) < 0.02
    assert expected_calibration_error(softmax(3 * logits, axis=1), labels) > 0.1


def test_the_likelihood_is_that_by_hand_and_finite_for_what_was_held_impossible() -> None:
    probabilities = np.array([[0.5, 0.5], [0.1, 0.9]], np.float32)
    assert negative_log_likelihood(probabilities, [0, 1]) == pytest.approx(-(np.log(0.5) + np.log(0.9)) / 2)
    assert negative_log_likelihood(np.full((6, 4), 0.25), [0, 1, 2, 3, 0, 1]) == pytest.approx(np.log(4))
    assert negative_log_likelihood(np.eye(2), [1, 0]) == pytest.approx(7 * np.log(10))  # 1e-7 is the least
    assert negative_log_likelihood(np.eye(2), [0, 1]) == 0
