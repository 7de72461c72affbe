"""Whisper on ONNX Runtime: the default engine on a CPU.

One pass of the encoder serves the words and, by its states on the way, the emotion. One pass of the decoder over keys
and values of the states serves the language and the text, and a text that somebody has heard already is verified at
once in place of being written token by token.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnxruntime import OrtValue
from tokenizers import Tokenizer

from models.onnx_session import cpu_session
from models.whisper.allocation import KeptMemory, keep_freed_memory
from models.whisper.arrays import layers_of, read_arrays
from models.whisper.ctranslate2_engine import CTranslate2Engine, prompt_of
from models.whisper.engine import Decoded, Encoded, States, TokenTime
from models.whisper.judge import hears_short
from models.whisper.onnx.decoder import cross_graph, cross_names, kept_names, step_graph
from models.whisper.onnx.encoder import encoder_graph

_NO_SPEECH: Final = ("<|nospeech|>", "<|nocaptions|>")  # the same token, by two names
_MULTILINGUAL_FROM: Final = 51_865  # words of the vocabulary; one less is English alone

# Between the log-probabilities of a token and the next best one: many rows at once are rounded otherwise than one alone
CLEARLY: Final = 0.4

Logits = NDArray[np.float32]
Kept = dict[str, OrtValue]


@dataclass(slots=True)
class _Begun:
    """States whose first token, the begin of every prompt, is decoded: the language and the text go on from here."""

    states: States
    logits: Logits  # (B, vocabulary)
    cross: Kept
    kept: Kept


class OnnxEngine:
    """A folder in CTranslate2's format, for a CPU. See `Engine`.

    CTranslate2 aligns texts, and is loaded for the first one.

    Args:
        model: the folder.
        threads: of one batch.
        batches: that may be computed at once, from as many threads; they share the weights.
    """

    def __init__(self, model: Path, threads: int = 1, batches: int = 1) -> None:
        keep_freed_memory()
        self._freed = KeptMemory()
        arrays = read_arrays(model / "model.bin")
        layers = layers_of(arrays, "decoder")
        vocabulary, self.width = arrays["decoder/embeddings/weight"].shape
        self.bands: int = arrays["encoder/conv1/weight"].shape[1]
        self.multilingual = vocabulary >= _MULTILINGUAL_FROM
        self.model = model
        self.hears_short = hears_short(model)
        self._kept_names, self._cross_names = kept_names(layers), cross_names(layers)
        graphs = (encoder_graph(arrays), cross_graph(arrays), step_graph(arrays))
        self._encoder, self._cross, self._step = (cpu_session(graph, threads) for graph in graphs)
        heads = int(arrays["decoder/num_heads"])
        self._sizes = heads, self.width // heads
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        settings = json.loads((model / "config.json").read_text(encoding="utf-8"))
        self._never = np.array(settings["suppress_ids"])
        self._never_first = self._never if self.hears_short else np.append(self._never, settings["suppress_ids_begin"])
        self._end = self._number("<|endoftext|>")
        self._no_speech = next(
            number for name in _NO_SPEECH if (number := self._tokenizer.token_to_id(name)) is not None
        )
        self._languages = {
            number: str(self._tokenizer.id_to_token(number)).strip("<|>") for number in settings["lang_ids"]
        }
        self._last = threading.local()
        self._aligner: CTranslate2Engine | None = None
        self._aligner_settings, self._aligner_lock = (threads, batches), threading.Lock()

    def encode(self, log_mel: NDArray[np.float32]) -> Encoded:
        """See `Engine.encode`."""
        states, *lower = self._encoder.run(None, {"log_mel": np.ascontiguousarray(log_mel[None], np.float32)})
        return Encoded(states[0], np.concatenate([layer[0] for layer in lower], axis=1))

    def align(self, states: States, language: str, tokens: Sequence[int], frames: int) -> list[TokenTime]:
        """See `Engine.align`."""
        with self._aligner_lock:
            if self._aligner is None:
                threads, batches = self._aligner_settings
                self._aligner = CTranslate2Engine(self.model, threads=threads, batches=batches)
        return self._aligner.align(states, language, tokens, frames)

    def text_of(self, tokens: Sequence[int]) -> str:
        """See `Engine.text_of`."""
        return str(self._tokenizer.decode(list(tokens)))

    def language_probabilities(self, states: States) -> list[dict[str, float]]:
        """See `Engine.language_probabilities`."""
        numbers = list(self._languages)
        probabilities = np.exp(_log_softmax(self._begun(states).logits[:, numbers]))
        return [dict(zip(self._languages.values(), row.tolist(), strict=True)) for row in probabilities]

    def decode(
        self, states: States, languages: Sequence[str], maximum_tokens: int, draft: Sequence[int] = ()
    ) -> list[Decoded]:
        """See `Engine.decode`."""
        begun = self._begun(states)
        self._last.begun = None  # its memory is free once the text is there
        no_speech = np.exp(_log_softmax(begun.logits))[:, self._no_speech]
        prompts = np.array(
            [[self._number(token) for token in prompt_of(language, self.multilingual)[1:]] for language in languages]
        )
        texts = self._texts(begun, prompts, maximum_tokens, list(draft)[: maximum_tokens - 1])
        self._freed.bound()
        return [
            Decoded(
                self._tokenizer.decode(tokens).strip(),
                tuple(tokens),
                float(total) / (len(tokens) + 1) if tokens else 0.0,
                float(silence),
            )
            for (tokens, total), silence in zip(texts, no_speech, strict=True)
        ]

    def _begun(self, states: States) -> _Begun:
        """The text of states follows their language: what is computed for one serves the other."""
        begun: _Begun | None = getattr(self._last, "begun", None)
        if begun is None or begun.states is not states:
            made = self._cross.run_with_ort_values(
                self._cross_names, {"states": _value(np.ascontiguousarray(states, np.float32))}
            )
            cross = dict(zip(self._cross_names, made, strict=True))
            heads, size = self._sizes
            nothing = {
                name: _value(np.zeros((len(states), heads, *((size, 0) if name.startswith("key") else (0, size)))))
                for name in self._kept_names
            }
            start = np.full((len(states), 1), self._number("<|startoftranscript|>"))
            logits, kept = self._next(start, 0, cross, nothing)
            begun = self._last.begun = _Begun(states, logits[:, 0], cross, kept)
        return begun

    def _texts(
        self, begun: _Begun, prompts: NDArray[np.int64], maximum_tokens: int, draft: Sequence[int]
    ) -> list[tuple[list[int], float]]:
        """Tokens of each text, and the sum of their log-probabilities and the end's.

        A draft is given to the decoder with the prompt of a single text; as much of it counts as the decoder would have
        written itself.
        """
        texts: list[tuple[list[int], float]] = [([], 0.0) for _ in prompts]
        draft = draft if len(prompts) == 1 else []
        width = prompts.shape[1]
        said = np.concatenate((prompts, np.array([draft], np.int64)), 1) if draft else prompts
        logits, kept = self._next(said, 1, begun.cross, begun.kept, first=width - 1)
        logits[:, 0, self._never_first] = -np.inf
        logits[:, 1:, self._never] = -np.inf
        scores = _log_softmax(logits)
        best = scores.argmax(axis=2)
        agreed = _agreed(scores[0], best[0], draft)
        if agreed:
            texts[0] = (list(draft[:agreed]), float(scores[0, range(agreed), draft[:agreed]].sum()))
        if agreed < len(draft):
            kept = self._shortened(kept, 1 + width + agreed)
        rows, cross = np.arange(len(prompts)), begun.cross
        chosen, place = best[:, agreed], 1 + width + agreed
        gained = np.take_along_axis(scores[:, agreed], chosen[:, None], 1)[:, 0]
        while True:
            goes_on = []
            for at, row in enumerate(rows):
                tokens, total = texts[row]
                if chosen[at] != self._end:
                    tokens.append(int(chosen[at]))
                texts[row] = (tokens, total + float(gained[at]))
                goes_on.append(chosen[at] != self._end and len(tokens) < maximum_tokens)
            if not any(goes_on):
                return texts
            if not all(goes_on):
                rows, chosen = rows[goes_on], chosen[goes_on]
                kept, cross = _rows(kept, goes_on), _rows(cross, goes_on)
            logits, kept = self._next(chosen[:, None], place, cross, kept)
            place += 1
            last = logits[:, 0]
            last[:, self._never] = -np.inf
            chosen = last.argmax(axis=1)
            gained = last[range(len(rows)), chosen] - _log_sum(last)[:, 0]

    def _next(
        self, tokens: NDArray[np.int64], place: int, cross: Kept, kept: Kept, first: int = 0
    ) -> tuple[Logits, Kept]:
        """Logits (B, n - first, vocabulary) behind tokens (B, n) that stand at `place`, and what is kept then."""
        count = tokens.shape[1]
        given = {
            "tokens": _value(np.ascontiguousarray(tokens, np.int64)),
            "positions": _value(np.arange(place, place + count)),
            "mask": _value(np.triu(np.full((count, place + count), -1e9, np.float32), place + 1)),
            "first": _value(np.array([first])),
            **{f"past_{name}": value for name, value in kept.items()},
            **cross,
        }
        logits, *made = self._step.run_with_ort_values(["logits", *self._kept_names], given)
        return logits.numpy(), dict(zip(self._kept_names, made, strict=True))

    def _shortened(self, kept: Kept, count: int) -> Kept:
        """Without what stands behind the first tokens."""
        arrays = {name: value.numpy() for name, value in kept.items()}
        return {
            name: _value(array[..., :count] if name.startswith("key") else array[:, :, :count])
            for name, array in arrays.items()
        }

    def _number(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        assert number is not None
        return number


def _agreed(scores: Logits, best: NDArray[np.int64], draft: Sequence[int]) -> int:
    """How many tokens of a draft are clearly the best ones behind those before them."""
    for count, token in enumerate(draft):
        others = np.delete(scores[count], token)
        if best[count] != token or scores[count, token] - others.max() < CLEARLY:
            return count
    return len(draft)


def _rows(values: Kept, chosen: Sequence[bool]) -> Kept:
    return {name: _value(value.numpy()[list(chosen)]) for name, value in values.items()}


def _value(array: NDArray[np.generic]) -> OrtValue:
    kind = array if array.dtype == np.int64 else np.asarray(array, np.float32)
    return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(kind))


def _log_sum(logits: Logits) -> Logits:
    highest = logits.max(axis=-1, keepdims=True)
    total: Logits = highest + np.log(np.exp(logits - highest).sum(axis=-1, keepdims=True))
    return total


def _log_softmax(logits: Logits) -> Logits:
    normed: Logits = logits - _log_sum(logits)
    return normed
