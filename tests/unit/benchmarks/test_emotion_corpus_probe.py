"""How well a corpus can be told: from vectors that show it and that do not, and what a voice network's end is given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from small_networks import SMALL, as_if_trained, spoken

from benchmarks.measuring.emotion.corpus_probe import named_by_others, read_by_predictors
from models.emotion.amser_states import VoiceNetwork
from models.emotion.batch import collate
from models.emotion.registry import build


def accuracy(vectors: np.ndarray, truth: np.ndarray, speakers: list[str]) -> float:
    return float((named_by_others(vectors.astype(np.float32), truth, speakers).argmax(1) == truth).mean())


def test_a_corpus_is_told_by_what_its_speakers_share_and_not_by_what_is_a_speakers_own() -> None:
    random = np.random.default_rng(0)
    truth = np.arange(400) % 2
    speakers = [f"{corpus} {number // 2 % 10}" for number, corpus in enumerate(truth)]
    room = random.normal(0, 1, (400, 6)) + truth[:, None]
    assert accuracy(room, truth, speakers) > 0.8
    own = {speaker: random.normal(0, 5, 6) for speaker in sorted(set(speakers))}
    voices = np.stack([own[speaker] for speaker in speakers]) + random.normal(0, 0.1, (400, 6))
    assert accuracy(voices, truth, speakers) < 0.75


def test_the_last_layers_are_given_the_vectors_that_make_their_logits() -> None:
    torch.manual_seed(0)
    network = as_if_trained(build(replace(SMALL, model="voice", modalities=("states",), ensemble=True)))
    assert isinstance(network, VoiceNetwork)
    assert network.shallow is not None
    utterances = [spoken(150, seed=1), spoken(60, seed=2), spoken(100, seed=3)]
    vectors = torch.from_numpy(read_by_predictors(network, utterances))
    assert vectors.shape == (3, 2 * SMALL.hidden)
    with torch.inference_mode():
        batch = collate(utterances)
        for reader, given in zip((network.deep, network.shallow), vectors.chunk(2, 1), strict=True):
            torch.testing.assert_close(reader.predictor(given), reader(batch).logits, rtol=1e-4, atol=1e-5)
