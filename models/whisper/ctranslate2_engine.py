"""Whisper on CTranslate2: 8-bit integers on a CPU, half precision on a GPU. The default engine on a GPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from ctranslate2 import StorageView
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.whisper.allocation import KeptMemory, keep_freed_memory
from models.whisper.engine import STATES_PER_SECOND, Decoded, Encoded, States, TokenTime
from models.whisper.judge import hears_short

# CTranslate2 takes AVX-512 on Intel's processors alone, though AMD's have it too. It reads this with its first model.
if torch.cpu.get_capabilities().get("avx512_vnni"):
    os.environ.setdefault("CT2_FORCE_CPU_ISA", "AVX512")


class CTranslate2Engine:
    """A folder in CTranslate2's format, with the `tokenizer.json` beside it.

    Args:
        model: the folder.
        device: `cpu` or `cuda`.
        compute_type: as CTranslate2 names them; None takes int8 on a CPU and float16 on a GPU.
        threads: of one batch; one was faster than two for each core on a busy machine.
        batches: that may be computed at once, from as many threads; they share the weights.
    """

    def __init__(
        self, model: Path, device: str = "cpu", compute_type: str | None = None, threads: int = 1, batches: int = 1
    ) -> None:
        keep_freed_memory()
        self._kept = KeptMemory()
        self._model = ctranslate2.models.Whisper(
            str(model),
            device=device,
            compute_type=compute_type or ("int8" if device == "cpu" else "float16"),
            intra_threads=threads,
            inter_threads=batches,
        )
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self.bands: int = self._model.n_mels
        self.multilingual: bool = self._model.is_multilingual
        self.model = model
        self.hears_short = hears_short(model)
        self.width: int = self.encode(np.zeros((self.bands, 2), np.float32)).states.shape[1]

    def encode(self, log_mel: NDArray[np.float32]) -> Encoded:
        """See `Engine.encode`; CTranslate2 keeps the lower states to itself."""
        features = StorageView.from_array(np.ascontiguousarray(log_mel[None], np.float32))
        states = self._model.encode(features, to_cpu=True).to(ctranslate2.DataType.float32)
        return Encoded(np.array(states)[0])

    def language_probabilities(self, states: States) -> list[dict[str, float]]:
        """See `Engine.language_probabilities`."""
        answers = self._model.detect_language(_view(states))
        return [{token.strip("<|>"): float(probability) for token, probability in ranked} for ranked in answers]

    def decode(
        self,
        states: States,
        languages: Sequence[str],
        maximum_tokens: int,
        draft: Sequence[int] = (),  # noqa: ARG002 - it can verify none at once
    ) -> list[Decoded]:
        """See `Engine.decode`."""
        results = self._model.generate(
            _view(states),
            [prompt_of(language, self.multilingual) for language in languages],
            beam_size=1,
            max_length=2 * maximum_tokens,  # CTranslate2 gives half of it to the text
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=not self.hears_short,
        )
        self._kept.bound()
        return [self._decoded(result) for result in results]

    def align(self, states: States, language: str, tokens: Sequence[int], frames: int) -> list[TokenTime]:
        """See `Engine.align`."""
        prompt = [self._tokenizer.token_to_id(token) for token in prompt_of(language, self.multilingual)]
        (aligned,) = self._model.align(_view(states[None]), prompt, [list(tokens)], frames)
        begins = {token: state for token, state in reversed(aligned.alignments)}  # the end of the text is a token too
        seconds = [begins[number] / STATES_PER_SECOND for number in range(len(tokens) + 1)]
        return [TokenTime(*each) for each in zip(seconds, seconds[1:], aligned.text_token_probs, strict=False)]

    def text_of(self, tokens: Sequence[int]) -> str:
        """See `Engine.text_of`."""
        return str(self._tokenizer.decode(list(tokens)))

    def _decoded(self, result: Any) -> Decoded:
        tokens = tuple(result.sequences_ids[0])
        # The score sums over the tokens and the end, and divides by the tokens alone: there is none of an empty text
        average = float(result.scores[0]) * len(tokens) / (len(tokens) + 1) if tokens else 0.0
        text = self._tokenizer.decode(list(tokens)).strip()
        return Decoded(text, tokens, average, float(result.no_speech_prob))


def prompt_of(language: str, multilingual: bool) -> list[str]:
    """The tokens before a text without time stamps."""
    if not multilingual:
        return ["<|startoftranscript|>", "<|notimestamps|>"]
    return ["<|startoftranscript|>", f"<|{language}|>", "<|transcribe|>", "<|notimestamps|>"]


def _view(states: States) -> StorageView:
    return StorageView.from_array(np.ascontiguousarray(states, np.float32))
