"""What confidence is worth: risk by coverage, and how many answers are sure."""

from __future__ import annotations

import numpy as np
import pytest

from training.judging.confidence import confident_share, risk_coverage


def answers(*confidences: float) -> np.ndarray:
    """Probabilities of two classes, whose answer is always the first."""
    return np.array([[each, 1 - each] for each in confidences])


def test_the_curve_is_that_by_hand() -> None:
    curve = risk_coverage(answers(0.6, 0.9, 0.8, 0.7), [1, 0, 1, 0])  # by confidence: right, wrong, right, wrong
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert curve.area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert curve.accuracy_at(0.25) == 1
    assert curve.accuracy_at(0.5) == 0.5
    assert curve.accuracy_at(0.6) == pytest.approx(2 / 3)  # 2.4 answers are three
    assert curve.accuracy_at(1) == 0.5


def test_answers_of_equal_confidence_have_no_order() -> None:
    for labels in ([0, 1, 0, 1], [1, 1, 0, 0]):
        curve = risk_coverage(answers(0.8, 0.8, 0.8, 0.8), labels)
        assert curve.risk.tolist() == [0.5] * 4
        assert curve.area == 0.5


def test_confidence_that_knows_what_is_right_has_a_smaller_area_than_one_that_does_not() -> None:
    labels = [0] * 50 + [1] * 50
    knowing = risk_coverage(answers(*np.linspace(0.99, 0.51, 100)), labels)
    mistaken = risk_coverage(answers(*np.linspace(0.51, 0.99, 100)), labels)
    assert knowing.accuracy_at(0.5) == 1
    assert mistaken.accuracy_at(0.5) == 0
    assert knowing.area < 0.2 < 0.8 < mistaken.area
    assert risk_coverage(answers(0.9, 0.8), [0, 0]).area == 0


def test_nothing_has_no_curve_and_a_share_above_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="no answers"):
        risk_coverage(np.zeros((0, 2)), [])
    with pytest.raises(ValueError, match=r"coverage 1\.5"):
        risk_coverage(answers(0.9), [0]).accuracy_at(1.5)


def test_the_sure_share_counts_answers_of_other_classes_above_the_threshold() -> None:
    neutral = 1
    probabilities = np.array([[0.9, 0.1, 0], [0.1, 0.9, 0], [0.6, 0.4, 0], [0, 0.2, 0.8], [0.3, 0.0, 0.7]])
    assert confident_share(probabilities, neutral) == pytest.approx(2 / 5)  # 0.7 is not above 0.7
    assert confident_share(probabilities, neutral, above=0.5) == pytest.approx(4 / 5)
    assert confident_share(probabilities[1:2], neutral) == 0
