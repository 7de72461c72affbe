"""The network's promises: padding, order and silence never change an answer; everything in it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fusion.attention import SA, SGA, CoAttention, MultiHeadAttention
from fusion.batch import UtteranceFeatures, collate, mask_of, trim_pauses
from fusion.network import AmserPlus, FusionConfig, pool_to_length

CLASSES = ("angry", "happy", "sad")
SMALL = FusionConfig(
    classes=CLASSES, context_width=24, conv_channels=(4, 6, 8), hidden=16, heads=2, feed_forward=32, layers=2,
    common_length=12, projection_width=8,
)  # fmt: skip


def utterance(frames: int, words: int = 5, context: int = 7, seed: int = 0) -> UtteranceFeatures:
    random = np.random.default_rng(seed)
    return UtteranceFeatures(
        log_mel=random.uniform(-0.5, 0.5, (80, frames)).astype(np.float32),
        words=random.standard_normal((words, 300)).astype(np.float32),
        context=random.standard_normal((context, 24)).astype(np.float32),
        encoder_states=np.zeros((1, 512), np.float16),
    )


@pytest.fixture
def network() -> AmserPlus:
    torch.manual_seed(0)
    built = AmserPlus(SMALL)
    # Statistics of a network that was trained: where a norm shifts, padding would show.
    for module in built.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias)
    return built.eval()


def answers(network: AmserPlus, utterances: list[UtteranceFeatures]) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        output = network(collate(utterances))
    return output.logits, output.embedding


@pytest.mark.parametrize("frames", [1, 2, 37, 121, 242])
def test_padding_never_changes_an_answer(network: AmserPlus, frames: int) -> None:
    short = utterance(frames, words=2, context=3)
    alone = answers(network, [short])
    beside_longer = answers(network, [short, utterance(301, words=20, context=30, seed=1)])
    for one, other in zip(alone, beside_longer, strict=True):
        torch.testing.assert_close(other[:1], one, rtol=1e-4, atol=1e-5)


def test_the_order_of_a_batch_does_not_matter(network: AmserPlus) -> None:
    batch = [utterance(90 + 40 * seed, words=seed, seed=seed) for seed in range(4)]
    forwards, _ = answers(network, batch)
    backwards, _ = answers(network, batch[::-1])
    torch.testing.assert_close(backwards.flip(0), forwards, rtol=1e-4, atol=1e-5)


def test_silence_around_an_utterance_never_changes_an_answer(network: AmserPlus) -> None:
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


def test_an_empty_text_gets_a_finite_answer(network: AmserPlus) -> None:
    logits, embedding = answers(network, [utterance(120, words=0, context=0), utterance(120)])
    assert torch.isfinite(logits).all()
    assert torch.isfinite(embedding).all()


def test_thirty_seconds_get_an_answer_and_more_is_refused(network: AmserPlus) -> None:
    assert answers(network, [utterance(3000)])[0].shape == (1, 3)
    with pytest.raises(ValueError, match="3001 frames"):
        collate([utterance(3001)])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (utterance(0), "0 frames"),
        (
            UtteranceFeatures(np.full((80, 9), np.nan), *(np.zeros((0, w), np.float32) for w in (300, 24, 512))),
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


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    network = AmserPlus(SMALL).train()
    output = network(collate([utterance(130 + 10 * seed, seed=seed) for seed in range(4)]))
    # Plain sums of a normed vector have gradients of zero in places; random weights do not.
    (output.logits * torch.randn_like(output.logits)).sum().add(
        (output.embedding * torch.randn_like(output.embedding)).sum()
    ).backward()
    without = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.abs().sum()]
    # The bias of a key shifts all of a query's scores alike, and softmax does not see it: its gradient is rounding.
    assert [name for name in without if not name.endswith("key.bias")] == []


def test_embeddings_have_unit_length(network: AmserPlus) -> None:
    _, embedding = answers(network, [utterance(100), utterance(200, seed=2)])
    assert embedding.shape == (2, 8)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))


def test_every_modality_can_change_the_answer(network: AmserPlus) -> None:
    base = utterance(140)
    other = utterance(140, seed=5)
    logits, _ = answers(network, [base])
    for features in (
        UtteranceFeatures(other.log_mel, base.words, base.context, base.encoder_states),
        UtteranceFeatures(base.log_mel, other.words, base.context, base.encoder_states),
        UtteranceFeatures(base.log_mel, base.words, other.context, base.encoder_states),
    ):
        assert (answers(network, [features])[0] - logits).abs().max() > 1e-4


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
