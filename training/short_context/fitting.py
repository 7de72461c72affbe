"""The student learns: batches of samples of like length, the teacher's words as targets, averaged adapters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import whisper
from rich.progress import Progress
from torch import Tensor
from torch.nn.functional import gelu

from models.whisper.engine import CONTEXT_FRAMES
from training.short_context.adapter import FROZEN_LAYERS, LowRank, add_adapters, save_adapters
from training.short_context.samples import Sample

POOL: Final = 48  # samples that are drawn together and put into batches of like length
BATCH_FRAMES: Final = 3200  # of a batch, silence included: 8 utterances of 4 s
LEARNING_RATE: Final = 1e-3
WARM_UP: Final = 50  # steps
LEAST_RATE: Final = 0.05  # of the learning rate, at the end
CLIP_NORM: Final = 1.0
AVERAGE: Final = 0.99  # moving average of the adapters
SAVE_EVERY: Final = 100  # steps


@dataclass(frozen=True, slots=True)
class Fit:
    """Attributes:
    steps: of the optimiser.
    learning_rate: at its highest.
    rank: of the adapters.
    seed: of everything that is drawn.
    """

    steps: int
    learning_rate: float
    rank: int
    seed: int


def batches(samples: Iterator[Sample], draw: np.random.Generator) -> Iterator[list[Sample]]:
    """Samples of like length together, so that little silence has to be added."""
    while True:
        pool = sorted((next(samples) for _ in range(POOL)), key=lambda sample: sample.frames)
        groups: list[list[Sample]] = [[]]
        for sample in pool:
            if groups[-1] and sample.frames * (len(groups[-1]) + 1) > BATCH_FRAMES:
                groups.append([])
            groups[-1].append(sample)
        for place in draw.permutation(len(groups)):
            yield groups[int(place)]


def fit(model: whisper.Whisper, samples: Iterator[Sample], settings: Fit, output: Path) -> None:
    """Teach a model and write its adapters, now and then and at the end.

    Args:
        model: changed in place.
        samples: without end.
        settings: how long and how fast.
        output: the file of adapters.
    """
    torch.manual_seed(settings.seed)
    adapters = add_adapters(model, settings.rank)
    learning = [weight for adapter in adapters.values() for weight in (adapter.down, adapter.up)]
    optimizer = torch.optim.AdamW(learning, settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings.steps))
    average = [weight.detach().clone() for weight in learning]
    batch = batches(samples, np.random.default_rng(settings.seed))
    recent = 0.0
    with Progress() as progress:
        task = progress.add_task("learning", total=settings.steps)
        for step in range(settings.steps):
            loss = loss_of(model, next(batch))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(learning, CLIP_NORM)
            optimizer.step()
            schedule.step()
            decay = min(AVERAGE, (step + 1) / (step + 10))
            for mean, weight in zip(average, learning, strict=True):
                mean.lerp_(weight.detach(), 1 - decay)
            recent = loss.item() if step == 0 else 0.98 * recent + 0.02 * loss.item()
            progress.update(task, advance=1, description=f"learning, loss {recent:.3f}")
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == settings.steps:
                _save(adapters, learning, average, output)


def _rate(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / WARM_UP)
    return warm * (LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _save(adapters: dict[str, LowRank], learning: Sequence[Tensor], average: Sequence[Tensor], output: Path) -> None:
    kept = [weight.detach().clone() for weight in learning]
    for weight, mean in zip(learning, average, strict=True):
        weight.data.copy_(mean)
    save_adapters(adapters, output)
    for weight, own in zip(learning, kept, strict=True):
        weight.data.copy_(own)


def loss_of(model: whisper.Whisper, batch: Sequence[Sample]) -> Tensor:
    """Cross-entropy with the teacher's likeliest tokens, a mean over the places that count."""
    states = encode(model, batch)
    longest = max(len(sample.tokens) for sample in batch)
    tokens = torch.zeros(len(batch), longest, dtype=torch.long)
    rows, places, likeliest, probabilities = [], [], [], []
    for row, sample in enumerate(batch):
        tokens[row, : len(sample.tokens)] = torch.tensor(sample.tokens)
        prompt = len(sample.tokens) - (len(sample.likeliest) - 2)
        rows += [row] * len(sample.likeliest)
        places += [0, *range(prompt - 1, len(sample.tokens))]
        likeliest.append(sample.likeliest)
        probabilities.append(sample.probabilities)
    hidden = _decoder_states(model, tokens, states)[rows, places]
    logits = hidden @ model.decoder.token_embedding.weight.T
    chosen = torch.log_softmax(logits, 1).gather(1, torch.from_numpy(np.concatenate(likeliest)))
    return -(chosen * torch.from_numpy(np.concatenate(probabilities))).sum(1).mean()


def encode(model: whisper.Whisper, batch: Sequence[Sample]) -> Tensor:
    """(B, n, width): encoder states of speech and silence, as long as the longest sample of the batch."""
    encoder = model.encoder
    longest = min(CONTEXT_FRAMES, 2 * math.ceil(max(sample.frames for sample in batch) / 2))
    mels = np.stack([_padded(sample, longest) for sample in batch])
    with torch.no_grad():
        hidden = gelu(encoder.conv2(gelu(encoder.conv1(torch.from_numpy(mels))))).transpose(1, 2)
        hidden = hidden + encoder.positional_embedding[: hidden.shape[1]]
        for block in encoder.blocks[:FROZEN_LAYERS]:
            hidden = block(hidden)
    for block in encoder.blocks[FROZEN_LAYERS:]:
        hidden = block(hidden)
    states: Tensor = encoder.ln_post(hidden)
    return states


def _padded(sample: Sample, frames: int) -> np.ndarray:
    padded = np.full((len(sample.mel), frames), sample.silence, np.float32)
    speech = sample.mel[:, :frames]
    padded[:, : speech.shape[1]] = speech
    return padded


def _decoder_states(model: whisper.Whisper, tokens: Tensor, states: Tensor) -> Tensor:
    """(B, n, width): of the last layer, before the vocabulary: only the places that count are multiplied by it."""
    decoder = model.decoder
    hidden = decoder.token_embedding(tokens) + decoder.positional_embedding[: tokens.shape[1]]
    for block in decoder.blocks:
        hidden = block(hidden, states, mask=decoder.mask)
    answer: Tensor = decoder.ln(hidden)
    return answer
