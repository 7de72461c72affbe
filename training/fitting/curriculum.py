"""The order of training: the published networks in one stage, ours in two.

The text network is trained on sentences and the voice network on utterances; their answers are summed, each calibrated.
So each is trained where its data is, and another text encoder leaves the voice as it is (`training.adapt`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

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
from models.whisper.engine import LOWER_LAYERS
from training.data.dataset import (
    LabelledSentence,
    LabelledUtterance,
    SentenceSampler,
    SpokenSampler,
    Substitution,
    sentence_alone,
)
from training.fitting.loading import SentenceBank, training_views, view_shares
from training.fitting.loop import (
    Epoch,
    Fitted,
    Training,
    logits_of,
    predict,
    standardize,
)
from training.fitting.recipe import Recipe
from training.fitting.sampling import Draws
from training.judging.calibration import fit_temperature
from training.judging.metrics import macro_f1, unweighted_accuracy

Report = Callable[[str, Epoch], None]


def train_at_once(
    recipe: Recipe,
    config: FusionConfig,
    training: Sequence[LabelledUtterance],
    validation: Sequence[LabelledUtterance],
    substitution: Substitution | None,
    report: Report,
    *,
    stop_after: int | None = None,
    state_file: Path | None = None,
) -> Fitted:
    """A network in one stage, from utterances with their own words or neutral ones."""
    torch.manual_seed(recipe.stage("training").seed)
    network = build(config)
    sampler = SpokenSampler(
        training,
        training_views(recipe),
        recipe.mel_augmenter(),
        substitution,
        recipe.state_augmenter(),
        view_shares(recipe),
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


def join(
    voice: VoiceNetwork, text: TextNetwork, voice_temperature: float = 1.0, text_temperature: float = 1.0
) -> AmserStates:
    """Voice and text as one network, each weighted by the inverse of the temperature that calibrates it."""
    config = replace(
        voice.config, model="amser-states", context_width=text.config.context_width, word_width=text.config.word_width
    )
    network = cast(AmserStates, build(config))
    network.voice.load_state_dict(voice.state_dict())
    network.text.load_state_dict(text.state_dict())
    network.voice_weight.fill_(1 / voice_temperature)
    network.text_weight.fill_(1 / text_temperature)
    return network.eval()


def voice_temperature(voice: VoiceNetwork, utterances: Sequence[LabelledUtterance], views: Sequence[str]) -> float:
    """What calibrates a voice network, by utterances that did not teach it; 1 where there are none."""
    if not utterances:
        return 1.0
    features = [each.features[view] for view in views for each in utterances]
    return fit_temperature(logits_of(voice, features), [each.label for _ in views for each in utterances])


def text_temperature(text: FusionNetwork, sentences: Sequence[LabelledSentence]) -> float:
    """What calibrates a text network, by the sentences of a single class, which did not teach it."""
    single = [sentence for sentence in sentences if len(sentence.labels) == 1]
    logits = logits_of(text, [sentence_alone(sentence.features) for sentence in single], 128)
    return fit_temperature(logits, [sentence.labels[0] for sentence in single])


def initialise_from_whisper(network: VoiceNetwork, recogniser: str) -> None:
    """Give the layers on top of the encoder states the weights of those that follow in Whisper's encoder."""
    branch = network.deep.states
    if branch is None or not branch.layers:
        return
    encoder = load_audio_encoder(model_path(recogniser), LOWER_LAYERS + len(branch.layers))
    _copy_layers(branch, encoder.blocks[LOWER_LAYERS:])


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
