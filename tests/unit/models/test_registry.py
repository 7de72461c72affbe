"""What holds for every network: padding and order never change an answer, and every parameter is trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import SMALL, answers, as_if_trained, spoken

from models.emotion.batch import collate
from models.emotion.network import FusionNetwork
from models.emotion.registry import MODELS, build

READS = {
    "amser": {"log_mel", "context"},
    "amser-plus": {"log_mel", "words", "context"},
    "amser-states": {"words", "context", "encoder_states"},
    "voice": {"encoder_states"},
    "text": {"words", "context"},
    "umons": {"log_mel", "words"},
    "xu": {"log_mel", "words"},
    "yoon": {"log_mel", "words"},
}


@pytest.fixture(params=sorted(MODELS))
def network(request: pytest.FixtureRequest) -> FusionNetwork:
    torch.manual_seed(0)
    return as_if_trained(build(replace(SMALL, model=request.param)))


@pytest.mark.parametrize("frames", [1, 2, 37, 121, 242])
def test_padding_never_changes_an_answer(network: FusionNetwork, frames: int) -> None:
    short = spoken(frames, words=2, context=3)
    alone = answers(network, [short])
    beside_longer = answers(network, [short, spoken(301, words=20, context=30, seed=1)])
    for one, other in zip(alone, beside_longer, strict=True):
        torch.testing.assert_close(other[:1], one, rtol=1e-5, atol=1e-5)


def test_the_order_of_a_batch_does_not_matter(network: FusionNetwork) -> None:
    batch = [spoken(90 + 40 * seed, words=seed, seed=seed) for seed in range(4)]
    forwards, _ = answers(network, batch)
    backwards, _ = answers(network, batch[::-1])
    torch.testing.assert_close(backwards.flip(0), forwards, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("frames", "words"), [(10, 1), (10, 0), (3000, 90)])
def test_the_shortest_and_the_longest_utterance_get_an_answer(network: FusionNetwork, frames: int, words: int) -> None:
    logits, embedding = answers(network, [spoken(frames, words, context=words + 2)])
    assert logits.shape == (1, 3)
    assert torch.isfinite(logits).all()
    assert torch.isfinite(embedding).all()


def test_features_that_are_empty_get_a_finite_answer(network: FusionNetwork) -> None:
    empty = replace(spoken(120, words=0, context=0), encoder_states=np.zeros((0, 1536), np.float16))
    logits, embedding = answers(network, [empty, spoken(120)])
    assert torch.isfinite(logits).all()
    assert torch.isfinite(embedding).all()


def test_embeddings_have_unit_length(network: FusionNetwork) -> None:
    _, embedding = answers(network, [spoken(100), spoken(200, seed=2)])
    assert embedding.shape == (2, 8)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("feature", ["log_mel", "words", "context", "encoder_states"])
def test_a_network_reads_what_its_paper_reads_and_nothing_else(network: FusionNetwork, feature: str) -> None:
    base, other = spoken(140), spoken(140, seed=5)
    logits, embedding = answers(network, [base])
    changed = answers(network, [replace(base, **{feature: getattr(other, feature)})])
    if feature in READS[network.config.model]:
        assert (changed[0] - logits).abs().max() > 1e-5
    else:
        assert torch.equal(changed[0], logits)
        assert torch.equal(changed[1], embedding)


def test_gradients_reach_every_parameter(network: FusionNetwork) -> None:
    torch.manual_seed(0)
    voiceless = replace(spoken(130), encoder_states=np.zeros((0, 1536), np.float16))
    batch = [voiceless, *(spoken(130 + 10 * seed, words=seed, seed=seed) for seed in range(4))]
    output = network.train()(collate(batch))
    # Plain sums of a normed vector have gradients of zero in places; random weights do not.
    (output.logits * torch.randn_like(output.logits)).sum().add(
        (output.embedding * torch.randn_like(output.embedding)).sum()
    ).backward()
    without = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.abs().sum()]
    # The bias of a key shifts all of a query's scores alike, and softmax does not see it: its gradient is rounding.
    # Voice and text have projectors for the time when they are trained alone.
    assert [name for name in without if not name.endswith("key.bias") and ".projector." not in name] == []


def test_without_the_contrastive_term_only_the_projector_does_not_learn(network: FusionNetwork) -> None:
    torch.manual_seed(0)
    output = network.train()(collate([spoken(130 + 10 * seed, seed=seed) for seed in range(4)]))
    torch.nn.functional.cross_entropy(output.logits, torch.tensor([0, 1, 2, 0])).backward()
    without = {name for name, value in network.named_parameters() if value.grad is None}
    assert {name for name in without if "projector." not in name} == set()
    assert len(without) >= 2  # weight and bias


def test_the_audio_branch_takes_the_standardisation(network: FusionNetwork) -> None:
    batch = collate([spoken(90), spoken(160, seed=1)])
    mean, deviation = torch.linspace(-1, 1, 80), torch.linspace(0.5, 2, 80)
    scaled = replace(batch, log_mel=batch.log_mel * deviation[:, None] + mean[:, None])
    with torch.inference_mode():
        before = network(batch).logits
        network.standardize_by(mean, deviation)
        torch.testing.assert_close(network(scaled).logits, before, rtol=1e-4, atol=1e-4)


def test_a_network_carries_the_config_it_was_built_from() -> None:
    for name, model in MODELS.items():
        network = build(replace(SMALL, model=name))
        assert type(network) is model
        assert network.config.model == name


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"'mulan'.*amser, amser-plus, amser-states, text, umons, voice, xu, yoon"):
        build(replace(SMALL, model="mulan"))
