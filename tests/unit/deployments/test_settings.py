"""Settings that do not fit are refused before anything starts."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from deployments.settings import Settings
from deployments.stages.assembly import stage_arguments
from deployments.stages.served import emotion_classes
from models.emotion.checkpoint_info import describe
from models.emotion.prior import PriorError
from models.weights import fingerprint

EVEN = dict.fromkeys(("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"), 0.143)


@pytest.mark.parametrize("prior", ["balanced", "acted", "conversation", EVEN])
def test_a_prior_is_a_name_or_a_share_for_each_class(prior: Any) -> None:
    assert Settings.model_validate({"emotion_prior": prior}).emotion_prior == prior
    assert Settings().emotion_prior == "balanced"


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ("holiday", "balanced"),
        ({**EVEN, "sad": 0.5}, "the shares sum to 1.358, not to 1"),
        ({**EVEN, "sad": 0}, "the share of sad is not above 0"),
        ({**EVEN, "sad": "often"}, "valid number"),
    ],
)
def test_another_prior_is_refused(prior: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate({"emotion_prior": prior})


def test_the_fusion_stage_is_given_the_share_of_each_class() -> None:
    settings = Settings(emotion_prior="conversation")
    _, (*_, shares, _) = stage_arguments(settings, gpu=False)["fusion"]
    assert tuple(shares) == emotion_classes(settings)
    assert shares["neutral"] == pytest.approx(4710 / 9989)


def test_a_prior_for_other_classes_stops_before_any_replica_starts() -> None:
    fewer = dict.fromkeys(("angry", "disgust", "happy", "neutral", "sad"), 0.2)
    with pytest.raises(PriorError, match="no share for fear, surprise; the network knows angry, disgust"):
        stage_arguments(Settings(emotion_prior=fewer), gpu=False)


@pytest.mark.parametrize(
    ("args", "encoder"),
    [
        ({}, "all-minilm-l6-v2"),
        ({"fusion_checkpoint": "models:emotion/checkpoints/amser-states-mpnet.safetensors"}, "all-mpnet-base-v2"),
    ],
)
def test_a_network_comes_with_the_package_for_each_text_encoder(args: dict[str, Any], encoder: str) -> None:
    settings = Settings.model_validate(args)
    assert describe(settings.fusion_checkpoint).encoders["context"] == fingerprint(encoder)
