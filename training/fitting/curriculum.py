"""The order of training: the published networks in one stage, ours in three.

The text network is trained on sentences, the voice network on utterances, then both are frozen and their fusion is
trained on pairs. So each can be trained where its data is, and another text encoder leaves the voice as it is
(`training.adapt`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from models.emotion.amser_states import (
    AmserStates,
    EncoderLayer,
    StateBranch,
    TextNetwork,
    VoiceNetwork,
)
from models.emotion.config import FusionConfig
from models.emotion.network import FusionNetwork
from models.emotion.registry import build
from models.weights import model_path
from models.whisper.conversion import load_audio_encoder
from models.whisper.voice import LAYERS
from training.data.dataset import (
    LabelledSentence,
    LabelledUtterance,
    PairSampler,
    SentenceSampler,
    SpokenSampler,
    TextSubstitution,
    sentence_alone,
)
from training.data.pairs import Pairs, paired
from training.fitting.loading import SentenceBank, training_views
from training.fitting.loop import (
    Epoch,
    Fitted,
    Training,
    logits_of,
    predict,
    standardize,
)
from training.fitting.probe import LinearProbe
from training.fitting.recipe import Recipe
from training.fitting.sampling import Draws
from training.judging.metrics import macro_f1, unweighted_accuracy

Report = Callable[[str, Epoch], None]


def train_at_once(
    recipe: Recipe,
    config: FusionConfig,
    training: Sequence[LabelledUtterance],
    validation: Sequence[LabelledUtterance],
    substitution: TextSubstitution | None,
    report: Report,
    *,
    stop_after: int | None = None,
    state_file: Path | None = None,
) -> Fitted:
    """A network in one stage, from utterances with their own words or neutral ones."""
    torch.manual_seed(recipe.stage("training").seed)
    network = build(config)
    sampler = SpokenSampler(
        training, training_views(recipe), recipe.mel_augmenter(), substitution, recipe.state_augmenter()
    )
    if isinstance(network, VoiceNetwork):
        initialise_from_whisper(network, recipe.recogniser)
    standardize(network, [utterance.features[recipe.views[0]] for utterance in training])
    run = Training(
        network,
        recipe.stage("training"),
        recipe.contrast(),
        sampler,
        _mean_accuracy(validation, recipe.views) if validation else None,
        draws=balanced_draws(recipe, training),
        stop_after=stop_after,
        state_file=state_file,
    )
    return run.run(lambda epoch: report(config.model, epoch))


def balanced_draws(recipe: Recipe, training: Sequence[LabelledUtterance]) -> Draws | None:
    """Draws balanced by corpus and class; None for one corpus whose epochs are passes over it."""
    if len(recipe.teachers) < 2 and recipe.stage("training").steps_per_epoch is None:
        return None
    return Draws.balanced(training, len(recipe.classes), {each.name: each.weight for each in recipe.teachers})


def train_text(
    recipe: Recipe, config: FusionConfig, bank: SentenceBank, report: Report, *, state_file: Path | None = None
) -> Fitted:
    """The text network, from sentences; the macro F1 of the development sentences chooses the epoch.

    Labels are not smoothed: the annotators of the sentences disagreed enough.
    """
    torch.manual_seed(recipe.stage("text_training").seed)
    run = Training(
        build(replace(config, model="text")),
        recipe.stage("text_training"),
        replace(recipe.contrast(), alpha=0.0, label_smoothing=0.0),
        SentenceSampler(bank.training),
        lambda network: text_f1(network, bank.development),
        state_file=state_file,
    )
    return run.run(lambda epoch: report("text", epoch))


def train_fusion(
    recipe: Recipe,
    voice: VoiceNetwork,
    text: TextNetwork,
    training: Sequence[LabelledUtterance],
    validation: Sequence[LabelledUtterance],
    bank: SentenceBank,
    report: Report,
    *,
    statistics: nn.Linear | None = None,
    stop_after: int | None = None,
) -> Fitted:
    """The fusion of a frozen voice and a frozen text network, from pairs (with cross-entropy alone).

    `statistics` is added afterwards: it fits its training utterances too well for a fusion to be trained beside it.
    """
    torch.manual_seed(recipe.stage("fusion_training").seed)
    network = join(voice, text)
    neutral = recipe.classes.index("neutral")
    spoken = SpokenSampler(training, training_views(recipe))
    sampler = PairSampler(spoken, bank.pairs["train"], neutral, recipe.pair_mixture())
    own_words = _mean_accuracy(validation, recipe.views)
    pairs = paired(validation, recipe.views[-1], bank.pairs["dev"]) if validation else None
    run = Training(
        network,
        recipe.stage("fusion_training"),
        replace(recipe.contrast(), alpha=0.0),
        sampler,
        (lambda network: (own_words(network) + _accuracy(network, pairs)) / 2) if pairs else None,
        freeze=("voice", "text") if network.statistics is None else ("voice", "text", "statistics"),
        stop_after=stop_after,
    )
    fitted = run.run(lambda epoch: report("fusion", epoch))
    if statistics is not None:
        cast(nn.Linear, cast(AmserStates, fitted.network).statistics).load_state_dict(statistics.state_dict())
    return fitted


def fit_statistics(recipe: Recipe, training: Sequence[LabelledUtterance]) -> nn.Linear | None:
    """Logistic regression on mean and deviation of the encoder states, in every view; None where they are not read."""
    if "states" not in recipe.network_config(0).modalities:
        return None
    views = [(each.features[view], each.label) for each in training for view in training_views(recipe)]
    probe = LinearProbe.fit([features for features, _ in views], [label for _, label in views], len(recipe.classes))
    return probe.as_layer()


def join(voice: VoiceNetwork, text: TextNetwork) -> AmserStates:
    """A network whose fusion is still to be trained, from a trained voice and a trained text network."""
    config = replace(
        voice.config, model="amser-states", context_width=text.config.context_width, word_width=text.config.word_width
    )
    network = cast(AmserStates, build(config))
    network.voice.load_state_dict(voice.state_dict())
    network.text.load_state_dict(text.state_dict())
    return network


def initialise_from_whisper(network: VoiceNetwork, recogniser: str) -> None:
    """Give the layers on top of the encoder states the weights of those that follow in Whisper's encoder."""
    branch = network.states
    if branch is None or not branch.layers:
        return
    encoder = load_audio_encoder(model_path(recogniser), LAYERS + len(branch.layers))
    _copy_layers(branch, encoder.blocks[LAYERS:])


def _copy_layers(branch: StateBranch, blocks: Iterable[Any]) -> None:
    layers = cast(Iterable[EncoderLayer], branch.layers)
    for layer, block in zip(layers, blocks, strict=True):
        parts = (
            (layer.attention_norm, block.attn_ln),
            (layer.attention.query, block.attn.query),
            (layer.attention.value, block.attn.value),
            (layer.attention.merge, block.attn.out),
            (layer.feed_forward_norm, block.mlp_ln),
            (layer.feed_forward[0], block.mlp[0]),
            (layer.feed_forward[2], block.mlp[2]),
        )
        for ours, theirs in parts:
            ours.load_state_dict(theirs.state_dict())
        with torch.no_grad():
            layer.attention.key.weight.copy_(block.attn.key.weight)
            layer.attention.key.bias.zero_()  # Whisper's keys have none


def text_f1(network: FusionNetwork, sentences: Sequence[LabelledSentence]) -> float:
    """Macro F1 over the sentences of a single class."""
    single = [sentence for sentence in sentences if len(sentence.labels) == 1]
    answers = logits_of(network, [sentence_alone(sentence.features) for sentence in single], 128).argmax(1)
    return macro_f1([sentence.labels[0] for sentence in single], answers)


def _mean_accuracy(utterances: Sequence[LabelledUtterance], views: Sequence[str]) -> Callable[[FusionNetwork], float]:
    labels = [utterance.label for utterance in utterances]

    def score(network: FusionNetwork) -> float:
        answers = (predict(network, [utterance.features[view] for utterance in utterances]) for view in views)
        return float(np.mean([unweighted_accuracy(labels, each.argmax(1)) for each in answers]))

    return score


def _accuracy(network: FusionNetwork, pairs: Pairs) -> float:
    return unweighted_accuracy(pairs.labels, predict(network, pairs.features).argmax(1))
