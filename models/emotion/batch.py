"""What the fusion network reads: the features of one utterance, and how utterances of different lengths are stacked.

Stands between the recogniser and text stages, which make the features, and `models.emotion.network`, which reads
batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amser.features import trim_pauses

MAXIMUM_SECONDS = 30.0  # the longest utterance that Whisper, and so the pipeline, takes at once
FRAMES_PER_SECOND = 100  # of a log-Mel spectrogram
DECIBEL = 0.025  # one decibel of power on the scale of whisper80, (log10 power + 4) / 4


@dataclass(frozen=True, slots=True)
class UtteranceFeatures:
    """One utterance, as the stages before the fusion network describe it.

    Attributes:
        log_mel: float16 or float32, shape (80, T), 10 ms a frame, after the codec; T ≥ 1.
        words: float32, shape (n, 300), one row a token of the ASR text; 0 for an empty text.
        context: float32, shape (m, width), one row a token of the contextual encoder, whose special tokens remain of
            an empty text.
        encoder_states: float16, shape (s, 1536), lower states of the recogniser's encoder, 12.5 rows a second of the
            speech between the pauses (`models.whisper.voice`). The published networks do not read them.
    """

    log_mel: NDArray[np.floating]
    words: NDArray[np.floating]
    context: NDArray[np.floating]
    encoder_states: NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class FusionBatch:
    """B utterances, padded with zeros at the end; a length counts the rows that are real.

    Attributes:
        log_mel: float32, (B, 80, T), with `mel_lengths` int64 (B,).
        words: float32, (B, n, 300), with `word_lengths` int64 (B,).
        context: float32, (B, m, width), with `context_lengths` int64 (B,).
        states: float32, (B, s, width), with `state_lengths` int64 (B,).
        has_voice: bool (B,), False where there are no encoder states.
        has_text: bool (B,), False where there are no words.
    """

    log_mel: Tensor
    mel_lengths: Tensor
    words: Tensor
    word_lengths: Tensor
    context: Tensor
    context_lengths: Tensor
    states: Tensor
    state_lengths: Tensor
    has_voice: Tensor
    has_text: Tensor

    def __len__(self) -> int:
        return int(self.log_mel.shape[0])

    def to(self, device: torch.device | str) -> FusionBatch:
        """The same batch on another device."""
        return FusionBatch(*(getattr(self, entry.name).to(device) for entry in fields(self)))


def collate(utterances: Sequence[UtteranceFeatures]) -> FusionBatch:
    """Stack utterances of any lengths.

    Pauses at the ends of the log-Mel are cut (see `amser.features.trim_pauses`). No words, no context or no states
    become a single row of zeros, so that attention always has something to read.

    Raises:
        ValueError: there are no utterances, a log-Mel has no frames, is longer than 30 s, or holds values that are not
            finite; or widths differ between utterances.
    """
    if not utterances:
        raise ValueError("a batch needs at least one utterance")
    limit = int(MAXIMUM_SECONDS * FRAMES_PER_SECOND)
    for position, utterance in enumerate(utterances):
        frames = utterance.log_mel.shape[1]
        if not 1 <= frames <= limit:
            raise ValueError(f"utterance {position}: {frames} frames of log-Mel; 1 to {limit} are possible")
        if not np.isfinite(utterance.log_mel).all():
            raise ValueError(f"utterance {position}: the log-Mel holds values that are not finite")
    mel, mel_lengths = _stack([trim_pauses(utterance.log_mel).T for utterance in utterances])
    words, word_lengths = _stack([_at_least_one_row(utterance.words) for utterance in utterances])
    context, context_lengths = _stack([_at_least_one_row(utterance.context) for utterance in utterances])
    states, state_lengths = _stack([_at_least_one_row(utterance.encoder_states) for utterance in utterances])
    return FusionBatch(
        log_mel=mel.transpose(1, 2),
        mel_lengths=mel_lengths,
        words=words,
        word_lengths=word_lengths,
        context=context,
        context_lengths=context_lengths,
        states=states,
        state_lengths=state_lengths,
        has_voice=torch.tensor([len(utterance.encoder_states) > 0 for utterance in utterances]),
        has_text=torch.tensor([len(utterance.words) > 0 for utterance in utterances]),
    )


def voice_alone(features: UtteranceFeatures) -> UtteranceFeatures:
    """The same voice without words."""
    return replace(features, words=features.words[:0], context=features.context[:0])


def mask_of(lengths: Tensor, rows: int) -> Tensor:
    """Lengths int64 (B,) → bool (B, rows), True where a row is real."""
    return torch.arange(rows, device=lengths.device)[None, :] < lengths[:, None]


def _at_least_one_row(values: NDArray[np.floating]) -> NDArray[np.floating]:
    return values if len(values) else np.zeros((1, values.shape[1]), values.dtype)


def _stack(matrices: Sequence[NDArray[np.floating]]) -> tuple[Tensor, Tensor]:
    widths = {matrix.shape[1] for matrix in matrices}
    if len(widths) > 1:
        raise ValueError(f"features of different widths in one batch: {sorted(widths)}")
    lengths = [len(matrix) for matrix in matrices]
    stacked = np.zeros((len(matrices), max(lengths), widths.pop()), np.float32)
    for row, matrix in enumerate(matrices):
        stacked[row, : len(matrix)] = matrix
    return torch.from_numpy(stacked), torch.tensor(lengths)
