"""Small networks and made features for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from models.emotion.batch import UtteranceFeatures, collate
from models.emotion.config import FusionConfig
from models.emotion.network import FusionNetwork

CLASSES = ("angry", "happy", "sad")
SMALL = FusionConfig(
    classes=CLASSES, context_width=24, conv_channels=(4, 6, 8), hidden=16, heads=2, feed_forward=32, layers=2,
    common_length=12, projection_width=8,
)  # fmt: skip
STATE_WIDTH = SMALL.state_width
FRAMES_IN_A_ROW = 8  # of states


def utterance(frames: int, words: int = 5, context: int = 7, seed: int = 0) -> UtteranceFeatures:
    random = np.random.default_rng(seed)
    return UtteranceFeatures(
        log_mel=random.uniform(-0.5, 0.5, (80, frames)).astype(np.float32),
        words=random.standard_normal((words, 300)).astype(np.float32),
        context=random.standard_normal((context, 24)).astype(np.float32),
        encoder_states=np.zeros((1, STATE_WIDTH), np.float16),
    )


def as_if_trained(network: FusionNetwork) -> FusionNetwork:
    """Statistics of a network that was trained: where a norm shifts, padding would show."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias)
    return network.eval()


def answers(network: FusionNetwork, utterances: list[UtteranceFeatures]) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        output = network(collate(utterances))
    return output.logits, output.embedding


def spoken(frames: int, words: int = 5, context: int = 7, seed: int = 0) -> UtteranceFeatures:
    shape = -(-frames // FRAMES_IN_A_ROW), STATE_WIDTH
    states = np.random.default_rng(seed).standard_normal(shape).astype(np.float16)
    return replace(utterance(frames, words, context, seed), encoder_states=states)
