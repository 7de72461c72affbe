"""The training objective: equations 7 and 8, the queue of keys and the slow copy that makes them."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_networks import SMALL, utterance
from torch import Tensor, nn
from torch.nn import functional

from models.emotion.batch import FusionBatch, collate
from models.emotion.config import FusionConfig
from models.emotion.network import FusionOutput
from models.emotion.published.amser_plus import AmserPlus
from training.data.dataset import NO_CLASS
from training.fitting.objective import (
    ContrastQueue,
    MomentumEncoder,
    Objective,
    ObjectiveConfig,
    masked_cross_entropy,
    supervised_contrast,
)

WITHOUT_DROPOUT = dataclasses.replace(SMALL, dropout=0.0, head_dropout=0.0)
LABELS = torch.tensor([0, 0, 1, 2])
IDS = torch.tensor([10, 11, 12, 13])


class Case(NamedTuple):
    """Arguments of `supervised_contrast` but for the temperature."""

    embeddings: Tensor
    labels: Tensor
    ids: Tensor
    queue_keys: Tensor
    queue_labels: Tensor
    queue_ids: Tensor


def random_case(views: int, queued: int, seed: int, classes: int = 3, utterances: int = 6) -> Case:
    random = np.random.default_rng(seed)
    label_of = random.integers(0, classes, utterances)
    vectors = random.standard_normal((views + queued, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = random.integers(0, utterances, views + queued)
    keys, labels = torch.from_numpy(vectors), torch.from_numpy(label_of[ids])
    numbers = torch.from_numpy(ids)
    return Case(keys[:views], labels[:views], numbers[:views], keys[views:], labels[views:], numbers[views:])


def contrast_by_loops(case: Case, temperature: float) -> float:
    """Equation 7, term by term."""
    vectors: NDArray[np.float64] = torch.cat((case.embeddings, case.queue_keys)).numpy()
    labels = torch.cat((case.labels, case.queue_labels)).tolist()
    ids = torch.cat((case.ids, case.queue_ids)).tolist()
    batch = len(case.embeddings)
    terms = []
    for i in range(batch):
        compared = [a for a in range(len(vectors)) if a != i and (a < batch or ids[a] != ids[i])]
        positives = [p for p in compared if labels[p] == labels[i]]
        if not positives:
            continue
        denominator = sum(math.exp(vectors[i] @ vectors[a] / temperature) for a in compared)
        logs = [math.log(math.exp(vectors[i] @ vectors[p] / temperature) / denominator) for p in positives]
        terms.append(-sum(logs) / len(positives))
    return float(np.mean(terms)) if terms else 0.0


@settings(max_examples=60)
@given(
    views=st.integers(1, 9),
    queued=st.integers(0, 8),
    seed=st.integers(0, 10_000),
    temperature=st.sampled_from([0.07, 0.1, 0.5, 1.0]),
)
def test_the_contrast_is_equation_7(views: int, queued: int, seed: int, temperature: float) -> None:
    case = random_case(views, queued, seed)
    expected = contrast_by_loops(case, temperature)
    assert float(supervised_contrast(*case, temperature)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_contrast_of_three_vectors_by_hand() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    nothing = torch.zeros(0, dtype=torch.int64)
    value = supervised_contrast(
        embeddings, torch.tensor([0, 0, 1]), torch.tensor([7, 7, 8]), torch.zeros(0, 2), nothing, nothing, 1.0
    )
    # Two views of one utterance are each other's positive; the third vector has none, and is not counted.
    assert float(value) == pytest.approx(-math.log(math.e / (math.e + 1)))


def test_without_positives_the_contrast_is_zero_and_still_has_a_gradient() -> None:
    case = random_case(3, 2, seed=0)
    embeddings = case.embeddings.clone().requires_grad_()
    labels, queue_labels = torch.tensor([0, 1, 2]), torch.tensor([3, 4])
    value = supervised_contrast(
        embeddings, labels, case.ids, case.queue_keys, queue_labels, case.queue_ids, temperature=0.1
    )
    value.backward()
    assert float(value.detach()) == 0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


def test_old_keys_of_the_same_utterance_are_not_compared() -> None:
    case = random_case(6, 0, seed=1)._replace(labels=torch.tensor([0, 0, 1, 1, 2, 2]), ids=torch.zeros(6).long())
    alone = supervised_contrast(*case, 0.1)
    queue = {"queue_keys": case.embeddings, "queue_labels": case.labels}
    own = case._replace(**queue, queue_ids=torch.zeros(6).long())
    torch.testing.assert_close(supervised_contrast(*own, 0.1), alone)
    others = case._replace(**queue, queue_ids=torch.ones(6).long())
    assert abs(float(supervised_contrast(*others, 0.1) - alone)) > 0.1


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_order_of_batch_and_queue_does_not_matter(temperature: float) -> None:
    case = random_case(8, 6, seed=2)
    batch, queue = torch.randperm(8), torch.randperm(6)
    shuffled = Case(*(values[batch] for values in case[:3]), *(values[queue] for values in case[3:]))
    torch.testing.assert_close(supervised_contrast(*shuffled, temperature), supervised_contrast(*case, temperature))


def test_following_the_gradient_brings_a_class_together() -> None:
    case = random_case(8, 6, seed=3)
    embeddings = case.embeddings.clone().requires_grad_()
    value = supervised_contrast(embeddings, *case[1:], 0.1)
    value.backward()
    assert embeddings.grad is not None
    moved = functional.normalize(case.embeddings - 0.01 * embeddings.grad, dim=1)
    assert supervised_contrast(moved, *case[1:], 0.1) < value.detach()


def test_a_low_temperature_overflows_nothing() -> None:
    case = Case(*(values.float() if values.is_floating_point() else values for values in random_case(8, 6, seed=4)))
    embeddings = case.embeddings.clone().requires_grad_()
    value = supervised_contrast(embeddings, *case[1:], 0.001)  # exp(1 / 0.001) is no number
    value.backward()
    assert torch.isfinite(value)
    assert embeddings.grad is not None
    assert torch.isfinite(embeddings.grad).all()


def keys_of(numbers: range) -> tuple[Tensor, Tensor, Tensor]:
    """A key for each number, which says it three times."""
    values = torch.tensor(list(numbers))
    return values[:, None].expand(-1, 2).float(), values, values


def test_a_queue_keeps_the_latest_keys() -> None:
    queue = ContrastQueue(size=5, width=2)
    assert len(queue) == 0
    assert queue.entries()[0].shape == (0, 2)
    queue.enqueue(*keys_of(range(3)))
    assert queue.entries()[2].tolist() == [0, 1, 2]
    queue.enqueue(*keys_of(range(3, 7)))  # wraps around
    queue.enqueue(*keys_of(range(7, 8)))
    keys, labels, ids = queue.entries()
    assert sorted(ids.tolist()) == [3, 4, 5, 6, 7]
    assert labels.tolist() == ids.tolist() == keys[:, 0].tolist()


def test_of_more_keys_than_fit_the_last_ones_stay() -> None:
    queue = ContrastQueue(size=4, width=2)
    queue.enqueue(*keys_of(range(11)))
    assert sorted(queue.entries()[2].tolist()) == [7, 8, 9, 10]
    queue.enqueue(*keys_of(range(11, 13)))
    assert sorted(queue.entries()[2].tolist()) == [9, 10, 11, 12]


def network_of(config: FusionConfig = SMALL, seed: int = 0) -> AmserPlus:
    torch.manual_seed(seed)
    return AmserPlus(config).train()


def batch_of(seed: int = 0) -> FusionBatch:
    return collate([utterance(60 + 10 * number, seed=10 * seed + number) for number in range(len(LABELS))])


def test_the_copy_moves_by_the_momentum() -> None:
    network = network_of()
    encoder = MomentumEncoder(network, momentum=0.75)
    encoder.updates.fill_(1000)  # past the rise
    before = [value.clone() for value in encoder.network.parameters()]
    with torch.no_grad():
        for value in network.parameters():
            value.add_(torch.randn_like(value))
    network(batch_of())  # moves BatchNorm's statistics
    encoder.update(network)
    for old, new, fresh in zip(before, encoder.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * fresh)
    for kept, latest in zip(encoder.network.buffers(), network.buffers(), strict=True):
        assert torch.equal(kept, latest)


def test_the_momentum_rises_so_that_the_random_start_is_forgotten() -> None:
    encoder = MomentumEncoder(network_of(), momentum=0.999)
    momenta = [encoder.momentum_at(update) for update in range(20_000)]
    assert momenta[0] == pytest.approx(0.1)
    assert momenta == sorted(momenta)
    assert momenta[-1] == 0.999
    assert math.prod(momenta[:50]) < 1e-6


def test_keys_have_unit_length_no_gradient_and_dropout() -> None:
    network = network_of().eval()
    encoder = MomentumEncoder(network)
    first, second = encoder(batch_of()), encoder(batch_of())
    torch.testing.assert_close(first.norm(dim=1), torch.ones(4))
    assert not first.requires_grad
    assert not torch.equal(first, second)
    assert not network.training


def passes_of(network: nn.Module) -> list[FusionBatch]:
    """Fills up with what the network is given."""
    seen: list[FusionBatch] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    return seen


def test_the_total_is_equation_8() -> None:
    network = network_of(WITHOUT_DROPOUT)
    weights = torch.tensor([0.5, 1.0, 2.0])
    config = ObjectiveConfig(alpha=0.5, temperature=1.0, label_smoothing=0.1)
    objective = Objective(network, config, weights)
    views = [batch_of(0), batch_of(1)]
    total, cross_entropy, contrast = (float(loss.detach()) for loss in objective(network, views, LABELS, IDS))

    one, other = (network(view) for view in views)
    both = [
        float(functional.cross_entropy(output.logits.detach(), LABELS, weights, label_smoothing=0.1))
        for output in (one, other)
    ]
    embeddings = torch.cat((one.embedding, other.embedding)).detach().double()
    nothing = torch.zeros(0, dtype=torch.int64)
    case = Case(embeddings, LABELS.repeat(2), IDS.repeat(2), torch.zeros(0, 8).double(), nothing, nothing)
    assert cross_entropy == pytest.approx(sum(both) / 2, rel=1e-5)
    assert contrast == pytest.approx(contrast_by_loops(case, 1.0), rel=1e-5)
    assert total == pytest.approx((cross_entropy + 0.5 * contrast) / 1.5, rel=1e-5)


def test_without_alpha_it_is_plain_cross_entropy_in_one_pass() -> None:
    network = network_of(WITHOUT_DROPOUT)
    weights = torch.tensor([0.5, 1.0, 2.0])
    objective = Objective(network, ObjectiveConfig(alpha=0, label_smoothing=0.05), weights)
    seen = passes_of(network)
    losses = objective(network, [batch_of()], LABELS, IDS)
    objective.after_step(network)
    assert len(seen) == 1
    expected = functional.cross_entropy(network(batch_of()).logits, LABELS, weights, label_smoothing=0.05)
    torch.testing.assert_close(losses.total, expected)
    assert losses.total is losses.cross_entropy
    assert float(losses.contrast) == 0
    assert objective.momentum_encoder is None
    assert len(objective.queue) == 0


def test_one_view_passes_twice_and_two_views_once_each() -> None:
    network = network_of()
    objective = Objective(network, ObjectiveConfig())
    seen = passes_of(network)
    one, other = batch_of(0), batch_of(1)
    objective(network, [one], LABELS, IDS)
    objective(network, [one, other], LABELS, IDS)
    assert [view is one for view in seen] == [True, True, True, False]


def test_a_step_enqueues_one_key_an_utterance_from_the_copy_that_has_moved() -> None:
    network = network_of(WITHOUT_DROPOUT)
    objective = Objective(network, ObjectiveConfig(queue=6))
    view = batch_of()
    objective(network, [view], LABELS, IDS)
    assert len(objective.queue) == 0  # not before the step
    with torch.no_grad():
        for value in network.parameters():
            value.mul_(1.5)
    objective.after_step(network)
    keys, labels, ids = objective.queue.entries()
    assert objective.momentum_encoder is not None
    assert int(objective.momentum_encoder.updates) == 1
    torch.testing.assert_close(keys, objective.momentum_encoder(view))
    assert labels.tolist() == LABELS.tolist()
    assert ids.tolist() == IDS.tolist()


def test_a_queue_of_nothing_contrasts_within_the_batch() -> None:
    network = network_of(WITHOUT_DROPOUT)
    objective = Objective(network, ObjectiveConfig(queue=0))
    first = objective(network, [batch_of()], LABELS, IDS)
    objective.after_step(network)
    assert objective.momentum_encoder is None
    assert float(first.contrast.detach()) > 0
    torch.testing.assert_close(objective(network, [batch_of()], LABELS, IDS).contrast, first.contrast)


def test_gradients_reach_both_heads_and_no_further_than_the_network() -> None:
    network = network_of()
    objective = Objective(network, ObjectiveConfig())
    for _ in range(2):
        objective(network, [batch_of()], LABELS, IDS).total.backward()
        objective.after_step(network)
    for layer in (network.predictor, network.projector, network.shared):
        assert layer.weight.grad is not None
        assert layer.weight.grad.abs().sum() > 0
    assert all(value.grad is None for value in objective.parameters())


def train(network: AmserPlus, objective: Objective, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    totals = []
    for step in steps:
        torch.manual_seed(step)
        losses = objective(network, [batch_of(step % 2)], LABELS, IDS + len(IDS) * (step % 2))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        objective.after_step(network)
        totals.append(float(losses.total.detach()))
    return totals


def test_training_that_resumes_goes_on_as_if_it_had_not_stopped() -> None:
    def start(seed: int) -> tuple[AmserPlus, Objective, torch.optim.Optimizer]:
        network = network_of(seed=seed)
        objective = Objective(network, ObjectiveConfig(queue=10), torch.ones(3))
        return network, objective, torch.optim.SGD(network.parameters(), lr=0.05)

    parts = start(0)
    train(*parts, range(4))
    saved = [{name: value.clone() for name, value in part.state_dict().items()} for part in parts[:2]]
    uninterrupted = train(*parts, range(4, 8))

    resumed = start(1)
    for part, state in zip(resumed[:2], saved, strict=True):
        part.load_state_dict(state)
    assert train(*resumed, range(4, 8)) == uninterrupted


def test_training_brings_the_utterances_of_a_class_together() -> None:
    network = network_of(WITHOUT_DROPOUT)
    objective = Objective(network, ObjectiveConfig(queue=10))
    train(network, objective, torch.optim.Adam(network.parameters(), lr=3e-3), range(30))
    embeddings = torch.cat([network(batch_of(seed)).embedding for seed in (0, 1)]).detach()
    labels = LABELS.repeat(2)
    similarity, alike = embeddings @ embeddings.T, labels[:, None] == labels
    assert similarity[alike].min() > 0.8
    assert similarity[~alike].max() < 0.6


@pytest.mark.parametrize(
    "wrong",
    [{"alpha": -0.1}, {"temperature": 0.0}, {"queue": -1}, {"momentum": 1.1}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_settings_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="possible"):
        ObjectiveConfig(**wrong)  # type: ignore[arg-type]


ALL_POSSIBLE = torch.ones(4, 3, dtype=torch.bool)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_among_all_classes_is_that_of_torch(smoothing: float) -> None:
    logits, weights = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5, 2.0, 1.0])
    expected = functional.cross_entropy(logits, LABELS, weights, label_smoothing=smoothing)
    torch.testing.assert_close(masked_cross_entropy(logits, LABELS, ALL_POSSIBLE, weights, smoothing), expected)


def test_a_class_that_a_corpus_lacks_is_not_taught_as_absent() -> None:
    logits = torch.randn(1, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    possible = torch.tensor([[True, False, True]])
    loss = masked_cross_entropy(logits, torch.tensor([2]), possible, torch.ones(3), 0.1)
    expected = functional.cross_entropy(logits[:, [0, 2]], torch.tensor([1]), label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0
    assert logits.grad[0, 0] > 0 > logits.grad[0, 2]


def test_a_sound_without_an_emotion_is_taught_equal_probabilities() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    possible = torch.tensor([[True, False, True]])
    loss = masked_cross_entropy(logits, torch.tensor([NO_CLASS]), possible, torch.ones(3), 0.1)
    assert loss.item() == pytest.approx(math.log(3))
    loss.backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros(1, 3))


def test_each_member_of_an_ensemble_is_compared_with_the_labels() -> None:
    network = network_of(WITHOUT_DROPOUT)
    objective = Objective(network, ObjectiveConfig(alpha=0))
    (logits, embedding) = network(batch_of())
    members = (logits, torch.zeros_like(logits))
    network.forward = lambda _: FusionOutput(torch.cat(members), embedding)  # type: ignore[method-assign]
    possible = torch.tensor([True, True, False]).expand(len(LABELS), 3) | functional.one_hot(LABELS, 3).bool()
    total = objective(network, [batch_of()], LABELS, IDS, possible).total
    losses = [masked_cross_entropy(each, LABELS, possible, torch.ones(3), 0.1) for each in members]
    torch.testing.assert_close(total, sum(losses) / 2)
