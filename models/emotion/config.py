"""Name and sizes of a network, as recipes give them and checkpoints carry them beside the weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FusionConfig:
    """Which network, and its sizes; a checkpoint carries them.

    The published settings (heads 4, hidden 512, feed-forward 1024, 2 layers) belong to 5,531 IEMOCAP utterances. The
    defaults are smaller, for corpora of about a thousand.

    Attributes:
        classes: names of the emotions, in the order of the logits.
        model: name of the network, a key of `models.emotion.registry.MODELS`.
        mel_bands: rows of the log-Mel.
        word_width: width of a word vector.
        context_width: width of the contextual encoder's token states, from that encoder's own config.
        state_width: width of a row of the recogniser's encoder states, for a network that reads them: the states of
            `state_sources` layers, side by side.
        state_sources: see `models.whisper.engine.LOWER_LAYERS`.
        conv_channels: output channels of the convolutions; the first two halve time as well as frequency, so that the
            LSTM sees 25 frames a second.
        hidden: width of every sequence after its branch.
        heads: attention heads.
        feed_forward: inner width of the feed-forward layers.
        layers: layers of each stack of a co-attention.
        common_length: rows that audio and words are pooled to before they are added.
        projection_width: width of the embedding for contrastive learning.
        dropout: within branches and attention.
        head_dropout: before the head.
        modalities: what `models.emotion.amser_states` reads of `mel`, `states`, `words` and `context`, and Amser+ of
            `mel`, `words` and `context`; the other networks of `models.emotion.published` read what their papers say.
        ensemble: whether the voice of `models.emotion.amser_states` is the average of three: with `state_layers`,
            without them, and a linear layer on the statistics of the states.
        style_mixing: probability that training mixes the statistics of an utterance's states with another one's.
        state_layers: layers that `models.emotion.amser_states` puts on top of the last source's states.
        state_heads: attention heads of these layers; 8 in Whisper base.
    """

    classes: tuple[str, ...]
    model: str = "amser-plus"
    mel_bands: int = 80
    word_width: int = 300
    context_width: int = 768
    state_width: int = 1536
    state_sources: int = 3
    conv_channels: tuple[int, ...] = (16, 32, 48)
    hidden: int = 128
    heads: int = 4
    feed_forward: int = 256
    layers: int = 2
    common_length: int = 60
    projection_width: int = 128
    dropout: float = 0.1
    head_dropout: float = 0.5
    modalities: tuple[str, ...] = ("states", "words", "context")
    ensemble: bool = False
    style_mixing: float = 0.0
    state_layers: int = 1
    state_heads: int = 8
