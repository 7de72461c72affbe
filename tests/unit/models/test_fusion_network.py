"""The parts of the published networks: what a batch holds, equation 6, who guides whom, pooling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import SMALL, answers, as_if_trained, utterance

from amser.features import trim_pauses
from models.emotion.attention import SA, SGA, CoAttention, MultiHeadAttention
from models.emotion.batch import UtteranceFeatures, collate, mask_of
from models.emotion.branches import pool_to_length
from models.emotion.network import FusionNetwork
from models.emotion.published.amser import Amser
from models.emotion.published.amser_plus import AmserPlus


def test_silence_around_an_utterance_never_changes_an_answer() -> None:
    torch.manual_seed(0)
    network = as_if_trained(AmserPlus(SMALL))
    speech = utterance(150)
    floor = np.full((80, 60), speech.log_mel.max() - 2.0, np.float32)
    floored = np.concatenate((floor, speech.log_mel, floor[:, :33]), axis=1)
    cut = np.concatenate((floor[:, :15], speech.log_mel, floor[:, :12]), axis=1)
    for one, other in zip(
        answers(network, [UtteranceFeatures(floored, speech.words, speech.context, speech.encoder_states)]),
        answers(network, [UtteranceFeatures(cut, speech.words, speech.context, speech.encoder_states)]),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_pauses_inside_an_utterance_stay() -> None:
    mel = np.full((80, 200), -1.0, np.float32)
    mel[:, 50:60] = mel[:, 120:130] = 1.0
    assert trim_pauses(mel).shape == (80, 100)  # frames 50 to 129 and 0.1 s on either side


def test_more_than_thirty_seconds_are_refused() -> None:
    assert collate([utterance(3000)]).log_mel.shape == (1, 80, 3000)
    with pytest.raises(ValueError, match="3001 frames"):
        collate([utterance(3001)])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (utterance(0), "0 frames"),
        (
            UtteranceFeatures(np.full((80, 9), np.nan), *(np.zeros((0, w), np.float32) for w in (300, 24, 1536))),
            "finite",
        ),
    ],
)
def test_a_log_mel_without_sense_is_refused(broken: UtteranceFeatures, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collate([broken])


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        collate([])


def test_guided_attention_reads_the_final_state_of_the_other_stack() -> None:
    torch.manual_seed(0)
    stacks = CoAttention(16, 2, 32, 2, 0.0).eval()
    guide, rows = torch.randn(1, 5, 16), torch.randn(1, 7, 16)
    guide_mask, mask = torch.ones(1, 5, dtype=torch.bool), torch.ones(1, 7, dtype=torch.bool)
    seen: list[torch.Tensor] = []
    for layer in stacks.decoder:
        assert isinstance(layer, SGA)
        layer.guided_attention.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    final, _ = stacks(guide, guide_mask, rows, mask)
    assert len(seen) == 2
    assert all(torch.equal(keys, final) for keys in seen)
    assert not torch.equal(final, stacks.encoder[0](guide, guide_mask))


@pytest.mark.parametrize(
    ("model", "stacks", "guide_rows", "rows"),
    [(Amser, "audio_context", 7, 30), (AmserPlus, "audio_words", 5, 30), (AmserPlus, "fused_context", 7, 12)],
)
def test_context_or_words_guide_and_audio_is_guided(
    model: type[FusionNetwork], stacks: str, guide_rows: int, rows: int
) -> None:
    network = model(SMALL).eval()
    seen: list[tuple[int, int]] = []
    network.get_submodule(stacks).register_forward_pre_hook(
        lambda _, inputs: seen.append((inputs[0].shape[1], inputs[2].shape[1]))
    )
    answers(network, [utterance(120, words=5, context=7)])
    assert seen == [(guide_rows, rows)]


def test_attention_is_equation_6_with_the_width_of_a_head() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2).eval()
    queries, keys = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    key_mask = torch.tensor([[True, True, True, False, False]])
    q, k, v = attention.query(queries), attention.key(keys)[:, :3], attention.value(keys)[:, :3]
    heads = [
        torch.softmax(q[0, :, head] @ k[0, :, head].T / 2, dim=1) @ v[0, :, head]  # √d_k = √4
        for head in (slice(0, 4), slice(4, 8))
    ]
    expected = attention.merge(torch.cat(heads, dim=1))
    torch.testing.assert_close(attention(queries, keys, key_mask)[0], expected)


def test_self_attention_never_reads_masked_rows() -> None:
    torch.manual_seed(0)
    layer = SA(16, 2, 32, 0.0).eval()
    rows = torch.randn(1, 6, 16)
    mask = mask_of(torch.tensor([4]), 6)
    changed = rows.clone()
    changed[:, 4:] = 100.0
    torch.testing.assert_close(layer(changed, mask)[:, :4], layer(rows, mask)[:, :4])


@pytest.mark.parametrize("rows", [1, 3, 12, 29])
def test_pooling_keeps_the_mean_and_ignores_padding(rows: int) -> None:
    values = torch.randn(1, 40, 4)
    mask = mask_of(torch.tensor([rows]), 40)
    pooled = pool_to_length(values, mask, 12)
    assert pooled.shape == (1, 12, 4)
    torch.testing.assert_close(pooled.mean(1), values[:, :rows].mean(1))


def test_pooling_to_the_same_length_changes_nothing() -> None:
    values = torch.randn(2, 12, 4)
    torch.testing.assert_close(pool_to_length(values, torch.ones(2, 12, dtype=torch.bool), 12), values)
