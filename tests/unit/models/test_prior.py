"""How often each emotion is expected: named settings, shares of one's own, and what is refused."""

from __future__ import annotations

import pytest

from models.emotion.prior import MELD, PriorError, check, shares
from training.corpora.manifest import CLASSES

OWN = {"angry": 0.3, "happy": 0.2, "neutral": 0.5}


@pytest.mark.parametrize("setting", ["balanced", "acted"])
def test_training_and_acted_speech_have_every_class_alike(setting: str) -> None:
    assert shares(setting, CLASSES) == dict.fromkeys(CLASSES, pytest.approx(1 / 7))  # type: ignore[arg-type]


def test_a_conversation_has_the_shares_of_meld() -> None:
    assert sum(MELD.values()) == 9989
    found = shares("conversation", CLASSES)
    assert tuple(found) == CLASSES
    assert found["neutral"] == pytest.approx(0.4715, abs=1e-4)
    assert found["fear"] == pytest.approx(0.0268, abs=1e-4)
    assert sum(found.values()) == pytest.approx(1)


def test_a_network_of_fewer_classes_has_the_shares_among_them() -> None:
    assert shares("conversation", ("neutral", "happy")) == {
        "neutral": pytest.approx(4710 / 6453),
        "happy": pytest.approx(1743 / 6453),
    }


def test_shares_of_ones_own_are_put_in_the_order_of_the_network() -> None:
    found = shares(OWN, ("neutral", "angry", "happy"))
    assert list(found.items()) == [("neutral", 0.5), ("angry", 0.3), ("happy", 0.2)]
    assert shares(found, ("neutral", "angry", "happy")) == found


def test_shares_that_were_rounded_are_scaled_to_one() -> None:
    found = shares({"angry": 0.333, "happy": 0.333, "neutral": 0.333}, tuple(OWN))
    assert list(found.values()) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({**OWN, "neutral": 0.0, "happy": 0.7}, "the share of neutral is not above 0"),
        ({**OWN, "neutral": -0.5}, "the share of neutral is not above 0"),
        ({**OWN, "neutral": float("nan")}, "the share of neutral is not above 0"),
        ({**OWN, "neutral": 0.6}, "the shares sum to 1.1, not to 1"),
        ({**OWN, "neutral": float("inf")}, "the shares sum to inf, not to 1"),
        ({}, "the shares sum to 0, not to 1"),
    ],
)
def test_shares_that_are_none_are_refused(prior: dict[str, float], message: str) -> None:
    with pytest.raises(PriorError, match=message):
        check(prior)
    with pytest.raises(PriorError, match=message):
        shares(prior, tuple(OWN))


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({"angry": 0.5, "happy": 0.5}, "no share for neutral; the network knows angry, happy, neutral"),
        ({**OWN, "happy": 0.1, "bored": 0.1}, "a share for bored; the network knows angry, happy, neutral"),
        ("holiday", "no prior 'holiday'; known: balanced, acted, conversation"),
    ],
)
def test_a_prior_has_exactly_the_classes_of_the_network(prior: dict[str, float], message: str) -> None:
    with pytest.raises(PriorError, match=message):
        shares(prior, tuple(OWN))
