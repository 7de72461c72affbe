"""How much Whisper's words depend on each part of a log-Mel: the metric that `klt` is optimal in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from scipy import fft
from torch import Tensor
from torch.nn import functional
from whisper.tokenizer import get_tokenizer

from amser.codecs.base import Float32
from amser.features import silence_value
from models.weights import model_path
from models.whisper.conversion import load_openai_whisper

PAUSE_AFTER_SPEECH = 100  # frames; the decoder is told the words, so it needs no more to find the end
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The Fisher information of the words about a log-Mel, its part across bands and its part along time.

    Attributes:
        bands: (80, 80), mean of g gᵀ over frames; g is the gradient of the words' log-likelihood.
        modulation: (n,), mean energy of g in each cosine of n frames, on average 1.
    """

    bands: Float64
    modulation: Float64


class WordLikelihood:
    """Whisper as a function of the log-Mel that can be differentiated."""

    def __init__(self, weights: str) -> None:
        self._model = load_openai_whisper(model_path(weights)).requires_grad_(False)
        self._tokenizer = get_tokenizer(True, num_languages=self._model.num_languages, language="en", task="transcribe")

    def gradient(self, log_mel: Float32, text: str) -> Float32:
        """(80, T): of the log-likelihood of words that are drawn, each after the true ones, from what Whisper expects.

        Words that are drawn make its square an estimate of the Fisher information; true ones would not.
        """
        values = torch.from_numpy(log_mel).requires_grad_()
        expected = self._expected(values, text)
        drawn = torch.multinomial(expected.detach().exp(), 1)
        (gradient,) = torch.autograd.grad(expected.gather(1, drawn).sum(), values)
        return gradient.numpy()

    def _expected(self, log_mel: Tensor, text: str) -> Tensor:
        """Log-probabilities (tokens + 1, vocabulary)."""
        prompt = self._tokenizer.sot_sequence_including_notimestamps
        tokens = torch.tensor([[*prompt, *self._tokenizer.encode(" " + text.strip())]])
        logits: Tensor = self._model.decoder(tokens, self._encode(log_mel))[0, len(prompt) - 1 :]
        return logits.log_softmax(-1)

    def _encode(self, log_mel: Tensor) -> Tensor:
        """The library's own encoder takes 30 s only; this takes the first positions."""
        pause = PAUSE_AFTER_SPEECH + log_mel.shape[1] % 2
        padded = functional.pad(log_mel, (0, pause), value=silence_value(log_mel.detach().numpy()))
        encoder = self._model.encoder
        hidden = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(padded[None])))).transpose(1, 2)
        hidden = hidden + encoder.positional_embedding[: hidden.shape[1]]
        for block in encoder.blocks:
            hidden = block(hidden)
        states: Tensor = encoder.ln_post(hidden)
        return states


def measure(utterances: Sequence[tuple[Float32, str]], weights: str, length: int, draws: int, seed: int) -> Sensitivity:
    """Sensitivity of the words of log-Mels (80, T), from `draws` gradients each."""
    torch.manual_seed(seed)
    likelihood = WordLikelihood(weights)
    return summarize(
        (
            likelihood.gradient(log_mel, text)
            for log_mel, text in track(utterances, "sensitivity of the words")
            for _ in range(draws)
        ),
        length,
    )


def summarize(gradients: Iterable[Float32], length: int) -> Sensitivity:
    """The Fisher information that gradients (80, T) give, with cosines of `length` frames."""
    bands, energy, frames, blocks = np.zeros((80, 80)), np.zeros(length), 0, 0
    for gradient in gradients:
        exact = gradient.astype(np.float64)
        bands += exact @ exact.T
        frames += exact.shape[1]
        count = exact.shape[1] // length
        cut = exact[:, : count * length].reshape(len(exact), count, length)
        energy += np.square(fft.dct(cut, axis=2, norm="ortho")).sum((0, 1))
        blocks += count
    return Sensitivity(bands / frames, energy / energy.mean())
