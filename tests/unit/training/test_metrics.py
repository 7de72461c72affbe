"""Figures of emotion classifiers: their values, and intervals over speakers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from training.judging.metrics import Estimate, bootstrap, confusion, score, ua_difference, unweighted_accuracy


@pytest.mark.parametrize("absent", [None, 2])
def test_figures_equal_scikit_learn(absent: int | None) -> None:
    random = np.random.default_rng(0)
    truth = random.choice([number for number in range(5) if number != absent], 300)
    answers = np.where(random.random(300) < 0.6, truth, random.integers(0, 5, 300))
    scores = score(truth, answers, [f"s{number % 7}" for number in range(300)])
    present = np.unique(truth)
    assert (scores.n, scores.n_speakers) == (300, 7)
    assert scores.wa.value == pytest.approx(accuracy_score(truth, answers))
    assert scores.ua.value == pytest.approx(unweighted_accuracy(truth, answers))
    recalls = recall_score(truth, answers, labels=present, average=None, zero_division=0)
    assert scores.ua.value == pytest.approx(np.mean(recalls))
    assert scores.macro_f1.value == pytest.approx(f1_score(truth, answers, labels=present, average="macro"))
    assert scores.weighted_f1.value == pytest.approx(f1_score(truth, answers, labels=present, average="weighted"))
    assert (confusion(truth, answers, 5) == confusion_matrix(truth, answers, labels=range(5))).all()


def test_one_speaker_always_right_and_one_always_wrong_leave_everything_open() -> None:
    truth = np.tile([0, 1], 50)
    speakers = ["right"] * 50 + ["wrong"] * 50
    answers = np.where(np.arange(100) < 50, truth, 1 - truth)
    scores = score(truth, answers, speakers)
    assert scores.wa == Estimate(0.5, 0.0, 1.0)
    assert scores.ua == Estimate(0.5, 0.0, 1.0)
    as_if_independent = score(truth, answers, [str(number) for number in range(100)])
    assert as_if_independent.ua.high - as_if_independent.ua.low == pytest.approx(0.2, abs=0.02)  # 2 · 1.96 · 0.5 / 10


def test_more_utterances_of_the_same_speakers_narrow_nothing_and_more_speakers_do() -> None:
    truth = np.tile(np.arange(4), 25)
    answers = np.where(np.arange(100) % 3, truth, (truth + 1) % 4)
    speakers = [f"s{number // 4}" for number in range(100)]
    few = score(truth, answers, speakers).ua
    longer = score(np.repeat(truth, 16), np.repeat(answers, 16), np.repeat(speakers, 16).tolist()).ua
    assert few.low < few.value < few.high
    assert (longer.value, longer.low, longer.high) == pytest.approx((few.value, few.low, few.high))
    crowd = [f"s{number // 4}" for number in range(1600)]
    many = score(np.tile(truth, 16), np.tile(answers, 16), crowd).ua
    assert (many.high - many.low) == pytest.approx((few.high - few.low) / 4, rel=0.25)


def test_a_single_speaker_has_a_figure_and_no_interval() -> None:
    ua = score([0, 1, 1], [0, 1, 0], ["s"] * 3).ua
    assert ua.value == pytest.approx(0.75)
    assert math.isnan(ua.low)
    assert math.isnan(ua.high)
    assert str(ua) == "0.750 [nan, nan]"


def test_a_difference_between_systems_is_paired_by_speaker() -> None:
    random = np.random.default_rng(0)
    speakers = np.repeat([f"s{number}" for number in range(12)], 40).tolist()
    truth = np.tile([0, 1], 240)
    right = random.random(480) < np.repeat(random.uniform(0.3, 0.9, 12), 40)  # some speakers are much harder
    reference = np.where(right, truth, 1 - truth)
    better = reference.copy()
    better[::20], better[1::20] = truth[::20], truth[1::20]  # always right on one utterance of ten
    difference = ua_difference(truth, better, reference, speakers)
    assert difference.value == pytest.approx(unweighted_accuracy(truth, better) - unweighted_accuracy(truth, reference))
    assert 0 < difference.low < difference.value < difference.high
    alone = score(truth, better, speakers).ua
    assert difference.high - difference.low < (alone.high - alone.low) / 3
    assert ua_difference(truth, reference, reference, speakers) == Estimate(0, 0, 0)


def test_two_speakers_of_whom_one_gains_and_one_loses_show_no_difference() -> None:
    difference = ua_difference([0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], ["a", "a", "b", "b"])
    assert difference == Estimate(0, -1, 1)


def test_the_interval_of_any_statistic_over_drawn_speakers() -> None:
    values = np.random.default_rng(1).normal(5, 2, 100)
    mean = bootstrap(lambda draws: draws @ values / draws.sum(1), 100)
    assert mean.value == pytest.approx(values.mean())
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.1)


def test_figures_of_nothing_and_vectors_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        score([], [], [])
    with pytest.raises(ValueError, match="2 labels and 1 speakers"):
        score([0, 1], [0, 1], ["a"])
