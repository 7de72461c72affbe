"""Whisper on openai-whisper (torch): the reference implementation, with the same weights, converted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import whisper
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import gelu
from whisper.decoding import DecodingOptions, DecodingResult, DecodingTask, SequenceRanker
from whisper.timing import find_alignment
from whisper.tokenizer import Tokenizer, get_tokenizer

from models.whisper.conversion import load_openai_whisper
from models.whisper.engine import Decoded, Encoded, States, TokenTime
from models.whisper.judge import hears_short


class OpenAIEngine:
    """openai-whisper from a folder in CTranslate2's format.

    Args:
        model: the folder.
        device: `cpu` or `cuda`; a GPU decodes in half precision.
        threads: of torch, in the whole process.
    """

    def __init__(self, model: Path, device: str = "cpu", threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self._model = load_openai_whisper(model).to(device)
        self._half = device != "cpu"
        self.bands: int = self._model.dims.n_mels
        self.width: int = self._model.dims.n_audio_state
        self.multilingual: bool = self._model.is_multilingual
        self.model = model
        self.hears_short = hears_short(model)
        self._tokenizer = get_tokenizer(self.multilingual, num_languages=self._model.num_languages)

    @torch.inference_mode()
    def encode(self, log_mel: NDArray[np.float32]) -> Encoded:
        """See `Engine.encode`. The library's own encoder takes 30 s only; this takes the first positions."""
        encoder = self._model.encoder
        features = torch.from_numpy(np.ascontiguousarray(log_mel[None])).to(self._model.device)
        hidden = gelu(encoder.conv2(gelu(encoder.conv1(features)))).transpose(1, 2)  # (1, T / 2, width)
        hidden = hidden + encoder.positional_embedding[: hidden.shape[1]]
        for block in encoder.blocks:
            hidden = block(hidden)
        return Encoded(encoder.ln_post(hidden)[0].float().cpu().numpy())

    @torch.inference_mode()
    def language_probabilities(self, states: States) -> list[dict[str, float]]:
        """See `Engine.language_probabilities`. The library's own detection takes states of 30 s only."""
        start = torch.full((len(states), 1), self._tokenizer.sot, device=self._model.device)
        logits = self._model.logits(start, self._tensor(states))[:, 0, list(self._tokenizer.all_language_tokens)]
        codes = self._tokenizer.all_language_codes
        return [dict(zip(codes, row.tolist(), strict=True)) for row in logits.float().softmax(dim=-1)]

    @torch.inference_mode()
    def decode(
        self,
        states: States,
        languages: Sequence[str],
        maximum_tokens: int,
        draft: Sequence[int] = (),  # noqa: ARG002 - it can verify none at once
    ) -> list[Decoded]:
        """See `Engine.decode`. One call of the library decodes one language, so a batch is split by it."""
        by_language: dict[str, list[int]] = defaultdict(list)
        for position, language in enumerate(languages):
            by_language[language].append(position)
        answers: dict[int, Decoded] = {}
        for language, positions in by_language.items():
            options = DecodingOptions(
                language=language,
                without_timestamps=True,
                suppress_blank=not self.hears_short,
                fp16=self._half,
                sample_len=maximum_tokens,
            )
            results = _EncodedTask(self._model, options).run(self._tensor(states[positions]))
            answers |= dict(zip(positions, map(_decoded, results), strict=True))
        return [answers[position] for position in range(len(languages))]

    def align(self, states: States, language: str, tokens: Sequence[int], frames: int) -> list[TokenTime]:
        """See `Engine.align`."""
        tokenizer = get_tokenizer(self.multilingual, num_languages=self._model.num_languages, language=language)
        timings = find_alignment(
            _Encoded(self._model), _EachToken(tokenizer), list(tokens), self._tensor(states), frames
        )
        return [TokenTime(float(each.start), float(each.end), float(each.probability)) for each in timings]

    def text_of(self, tokens: Sequence[int]) -> str:
        """See `Engine.text_of`."""
        return str(self._tokenizer.decode(list(tokens)))

    def _tensor(self, states: States) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(states)).to(self._model.device)
        return tensor.half() if self._half else tensor


class _Only(SequenceRanker):  # type: ignore[misc]  # the library has no types
    """Takes the one text there is; the library's ranker divides by its length, which may be 0."""

    def rank(self, tokens: list[list[Tensor]], sum_logprobs: list[list[float]]) -> list[int]:  # noqa: ARG002
        return [0] * len(tokens)


class _EncodedTask(DecodingTask):  # type: ignore[misc]
    """The library's decoding, from encoder states of any length in place of a log-Mel of 30 s."""

    def __init__(self, model: whisper.Whisper, options: DecodingOptions) -> None:
        super().__init__(model, options)
        self.sequence_ranker = _Only()

    def _get_audio_features(self, mel: Tensor) -> Tensor:
        return mel


class _Encoded:
    """A model whose encoder has run: what the library's alignment calls with a log-Mel is given encoder states."""

    def __init__(self, model: whisper.Whisper) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, states: Tensor, tokens: Tensor) -> Tensor:
        logits: Tensor = self._model.decoder(tokens, states)
        return logits


class _EachToken:
    """A tokenizer to which each token is a word of its own."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def split_to_word_tokens(self, tokens: list[int]) -> tuple[list[str], list[list[int]]]:
        return [""] * len(tokens), [[token] for token in tokens]


def _decoded(result: DecodingResult) -> Decoded:
    return Decoded(
        text=result.text.strip(),
        tokens=tuple(result.tokens),
        average_log_probability=result.avg_logprob if result.tokens else 0.0,
        no_speech_probability=result.no_speech_prob,
    )
