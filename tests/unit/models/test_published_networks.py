"""The parts of the published baselines, and the linear probe."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from small_networks import SMALL, answers, as_if_trained, spoken, utterance
from torch import nn

from models.emotion.batch import UtteranceFeatures, collate, mask_of
from models.emotion.published.amser_plus import PUBLISHED, AmserPlus
from models.emotion.published.frames import MelRows
from models.emotion.published.umons import AttentionFlattening, Glimpse, Umons
from models.emotion.published.xu import Alignment, run_bidirectional
from models.emotion.published.yoon import last_state
from training.fitting.probe import LinearProbe, statistics_over_time

SUBSETS = [subset for size in (1, 2, 3) for subset in combinations(PUBLISHED, size)]
FEATURE_OF = {"mel": "log_mel", "words": "words", "context": "context"}
LAYERS_OF = {"mel": "audio", "words": "words", "context": "context"}


def with_states(states: np.ndarray) -> UtteranceFeatures:
    return replace(utterance(20), encoder_states=states.astype(np.float16))


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_amser_plus_of_some_modalities_reads_these_alone_and_has_no_other_branch(subset: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    network = as_if_trained(AmserPlus(replace(SMALL, modalities=subset)))
    assert network.modalities == subset
    base, other = spoken(140), spoken(140, seed=5)
    logits, _ = answers(network, [base])
    for name, feature in FEATURE_OF.items():
        changed, _ = answers(network, [replace(base, **{feature: getattr(other, feature)})])
        assert torch.equal(changed, logits) == (name not in subset)
        assert (getattr(network, LAYERS_OF[name]) is None) == (name not in subset)
    beside_longer, _ = answers(network, [base, spoken(301, words=20, context=30, seed=1)])
    torch.testing.assert_close(beside_longer[:1], logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_every_parameter_of_amser_plus_of_some_modalities_is_trained(subset: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    network = AmserPlus(replace(SMALL, modalities=subset)).train()
    output = network(collate([spoken(130 + 10 * seed, words=seed + 1, seed=seed) for seed in range(4)]))
    (output.logits * torch.randn_like(output.logits)).sum().add(
        (output.embedding * torch.randn_like(output.embedding)).sum()
    ).backward()
    without = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.abs().sum()]
    assert [name for name in without if not name.endswith("key.bias")] == []


def test_amser_plus_has_a_co_attention_for_each_pair_that_it_fuses() -> None:
    fused = {
        subset: [network.audio_words is not None, network.fused_context is not None]
        for subset in SUBSETS
        for network in [AmserPlus(replace(SMALL, modalities=subset))]
    }
    assert fused == {
        ("mel",): [False, False],
        ("words",): [False, False],
        ("context",): [False, False],
        ("mel", "words"): [True, False],
        ("mel", "context"): [False, True],
        ("words", "context"): [False, True],
        ("mel", "words", "context"): [True, True],
    }


def test_amser_plus_reads_all_three_where_the_config_names_no_choice_of_them() -> None:
    assert "states" in SMALL.modalities
    assert AmserPlus(SMALL).modalities == PUBLISHED


def test_a_row_is_the_mean_of_the_real_frames_among_four() -> None:
    log_mel = torch.arange(10.0).expand(2, 80, 10)
    rows, mask = MelRows(80)(log_mel, torch.tensor([10, 6]))
    assert mask.tolist() == [[True, True, True], [True, True, False]]
    assert rows[:, :, 0].tolist() == [[1.5, 5.5, 8.5], [1.5, 4.5, 0.0]]


def test_a_glimpse_keeps_the_shape_and_flattening_doubles_the_width() -> None:
    rows = torch.randn(2, SMALL.common_length, SMALL.hidden)
    assert Glimpse(SMALL)(rows).shape == rows.shape
    assert AttentionFlattening(SMALL)(rows).shape == (2, 2 * SMALL.hidden)


def test_glimpses_stand_between_the_blocks_of_umons() -> None:
    network = Umons(replace(SMALL, layers=3)).eval()
    assert len(network.glimpses) == 2
    order: list[str] = []
    for name, module in network.named_modules():
        if name.count(".") == 1 and name.startswith(("blocks", "glimpses")):
            for part in [module] if name.startswith("blocks") else list(module.children()):
                part.register_forward_hook(lambda *_, name=name: order.append(name))
    network(collate([utterance(60)]))
    assert order == ["blocks.0", *["glimpses.0"] * 2, "blocks.1", *["glimpses.1"] * 2, "blocks.2"]


def test_in_umons_words_guide_audio_as_they_enter_the_block() -> None:
    network = Umons(SMALL).eval()
    words, audio = torch.randn(1, 12, 16), torch.randn(1, 12, 16)
    for block in network.blocks:
        seen: list[torch.Tensor] = []
        block.audio.guided_attention.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[1]))
        entering = words
        words, audio = block(words, audio)
        assert torch.equal(seen[0], entering)


def test_alignment_is_a_mean_of_real_frames_weighted_by_word_and_frame() -> None:
    torch.manual_seed(0)
    alignment = Alignment(6)
    words, audio = torch.randn(1, 3, 6), torch.randn(1, 5, 6)
    mask = mask_of(torch.tensor([4]), 5)
    u, v, b = alignment.score_of_audio.weight[0], alignment.score_of_word.weight[0], alignment.score_of_word.bias
    for j in range(3):
        weights = torch.softmax(
            torch.stack([torch.tanh(u @ audio[0, i] + v @ words[0, j] + b)[0] for i in range(4)]), 0
        )
        torch.testing.assert_close(alignment(words, audio, mask)[0, j], weights @ audio[0, :4])


def test_the_backward_direction_begins_at_the_last_real_row() -> None:
    lstm = nn.LSTM(4, 3, batch_first=True, bidirectional=True)
    rows = torch.randn(2, 9, 4)
    states = run_bidirectional(lstm, rows, mask_of(torch.tensor([5, 9]), 9))
    torch.testing.assert_close(states[0, :5], lstm(rows[:1, :5])[0][0])
    assert not states[0, 5:].any()


def test_the_last_state_is_that_of_the_last_real_row() -> None:
    gru = nn.GRU(4, 3, batch_first=True)
    rows = torch.randn(2, 9, 4)
    states = last_state(gru, rows, mask_of(torch.tensor([5, 9]), 9))
    torch.testing.assert_close(states[0], gru(rows[:1, :5])[1][0, 0])
    torch.testing.assert_close(states[1], gru(rows[1:])[1][0, 0])


def test_statistics_are_mean_and_deviation_over_time_and_zeros_without_states() -> None:
    states = np.array([[1.0, 4.0], [3.0, 4.0]])
    statistics = statistics_over_time([with_states(states), with_states(np.zeros((0, 2)))])
    assert statistics.dtype == np.float32
    assert statistics.tolist() == [[2.0, 4.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]


def test_statistics_of_large_states_stay_finite() -> None:
    statistics = statistics_over_time([with_states(np.full((1500, 2), 60_000.0))])
    np.testing.assert_allclose(statistics, [[60_000, 60_000, 0, 0]], rtol=1e-3, atol=1)


@pytest.mark.parametrize("classes", [None, 4])
def test_the_probe_tells_apart_what_differs_in_the_mean(classes: int | None) -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 2], 30)  # nobody says class 1, or 3
    utterances = [with_states(random.normal(label, 0.3, (random.integers(3, 9), 8))) for label in labels]
    probe = LinearProbe.fit(utterances, labels, classes)
    probabilities = probe.predict([*utterances, with_states(np.zeros((0, 8)))])
    assert probabilities.shape == (61, classes or 3)
    assert probabilities.dtype == np.float32
    assert (probabilities[:60].argmax(1) == labels).all()
    assert not probabilities[:, 1].any()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
