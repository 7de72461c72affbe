"""How a Whisper learns to hear short: samples of clips and lessons, batches of like length, low-rank adapters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import whisper
from recordings import DATA, rows
from safetensors.numpy import load_file, save_file
from small_whisper import write_whisper
from torch import nn
from whisper.tokenizer import Tokenizer, get_tokenizer

from models.whisper.adapter import adapt
from models.whisper.arrays import read_arrays, renamed, write_arrays
from models.whisper.conversion import load_openai_whisper
from training.data.waveform_augmentation import WaveformAugmentation
from training.short_context.adapter import FROZEN_LAYERS, AdaptersDiffer, LowRank, add_adapters, average
from training.short_context.clips import Clip
from training.short_context.fitting import BATCH_FRAMES, POOL, Fit, batches, encode, fit, loss_of
from training.short_context.samples import LANGUAGE_WEIGHT, LONG_TAIL, OFTEN, Sample, Samples, mixed
from training.short_context.teacher import LIKELIEST, Lesson, prompt_of

PROMPT = 4  # tokens: start, language, task, no timestamps
LANGUAGES = ("en", "en", "en", "de")  # of the clips
WIDTH, LAYERS, BANDS, VOCABULARY = 64, FROZEN_LAYERS + 1, 80, 64
DRAWN = 60


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return get_tokenizer(True, num_languages=99)


# --- Samples ----------------------------------------------------------------------------------------------------------


def text_of(place: int) -> list[int]:
    """Three tokens, by which a clip is recognised."""
    return [1000 * place + 101, 1000 * place + 102, 1000 * place + 103]


def lesson_of(place: int, languages: list[int]) -> Lesson:
    """Of a teacher that hears English at first and then is sure by three quarters."""
    tokens = text_of(place)
    likeliest = np.tile(np.arange(LIKELIEST, dtype=np.int32) + 20_000, (len(tokens) + 2, 1))
    likeliest[0] = languages[:LIKELIEST]
    likeliest[2:, 0] = tokens
    shares = np.full(LIKELIEST, 0.25 / (LIKELIEST - 1))
    shares[0] = 0.75
    return Lesson(
        np.array(tokens, np.int32), likeliest, np.tile(shares, (len(likeliest), 1)).astype(np.float16), -0.2, 0.01
    )


@pytest.fixture(scope="module")
def samples(tokenizer: Tokenizer) -> Samples:
    files = sorted((row for row in rows("speech/librispeech.tsv")), key=lambda row: float(row["seconds"]))
    clips = [
        Clip(DATA / row["path"], "librispeech", row["speaker"], language, 1)
        for row, language in zip(files, LANGUAGES, strict=False)
    ]
    languages = list(tokenizer.all_language_tokens)
    lessons = [lesson_of(place, languages) for place in range(len(clips))]
    quick = WaveformAugmentation(pitch=0.0, stretch=0.0, noise=0.3, gain=0.3)
    return Samples(clips, lessons, [], quick, tokenizer)


@pytest.fixture(scope="module")
def drawn(samples: Samples) -> list[Sample]:
    return list(islice(samples.drawn(np.random.default_rng(0)), DRAWN))


def words(sample: Sample) -> list[int]:
    """The clips of which a text is made."""
    text = sample.tokens[PROMPT:]
    places = [token // 1000 for token in text[::3]]
    assert list(text) == [token for place in places for token in text_of(place)]
    return places


def test_a_sample_has_a_mel_a_prompt_and_as_many_targets_as_places(drawn: list[Sample], tokenizer: Tokenizer) -> None:
    for sample in drawn:
        bands, frames = sample.mel.shape
        assert (bands, sample.mel.dtype) == (BANDS, np.float32)
        assert frames <= 2900
        assert LONG_TAIL[0] <= sample.tail < LONG_TAIL[1]
        assert sample.frames == frames + sample.tail
        language = tokenizer.decode([sample.tokens[1]])[2:-2]
        assert list(sample.tokens[:PROMPT]) == prompt_of(tokenizer, language)
        targets = (len(sample.tokens) - PROMPT + 2, LIKELIEST)
        assert sample.likeliest.shape == sample.probabilities.shape == targets
        np.testing.assert_allclose(sample.probabilities.sum(axis=1), 1.0, atol=0.01)


def test_single_clips_joined_clips_and_sounds_are_drawn(drawn: list[Sample], tokenizer: Tokenizer) -> None:
    texts = [words(sample) for sample in drawn]
    assert 0.02 < np.mean([len(text) == 0 for text in texts]) < 0.35
    assert 0.1 < np.mean([len(text) > 1 for text in texts]) < 0.45
    assert any(len(set(text)) > 1 for text in texts)
    assert any(len(text) > 1 and len(set(text)) == 1 for text in texts)  # said again and again
    for sample, text in zip(drawn, texts, strict=True):
        if text:
            assert {LANGUAGES[place] for place in text} == {tokenizer.decode([sample.tokens[1]])[2:-2]}


def test_no_clip_comes_more_often_than_its_share_before_all_were_drawn(drawn: list[Sample]) -> None:
    once = OFTEN["believed"] * len(LANGUAGES)
    for start in range(0, DRAWN, once):
        first = [text[0] for text in map(words, drawn[start : start + once]) if text]
        assert max(Counter(first).values()) <= OFTEN["believed"]


def test_speech_whose_text_is_not_believed_teaches_that_it_is_speech(tokenizer: Tokenizer) -> None:
    row = rows("speech/librispeech.tsv")[0]
    clip = Clip(DATA / row["path"], "librispeech", row["speaker"], "am", 1)
    lesson = replace(lesson_of(0, list(tokenizer.all_language_tokens)), average_log_probability=-1.5)
    lesson.likeliest[0, 0] = tokenizer.no_speech  # the likeliest by far, the teacher says
    samples = Samples([clip], [lesson], [], WaveformAugmentation(), tokenizer)
    drawn = [one for one in islice(samples.drawn(np.random.default_rng(0)), 8) if len(one.likeliest) == 1]
    assert len(drawn) > 4
    for sample in drawn:
        assert sample.tokens == (tokenizer.sot,)
        assert sample.probabilities.sum() == pytest.approx(1.0, abs=0.02)  # the least likely of the teacher gave way
        assert sample.probabilities[sample.likeliest == tokenizer.no_speech].sum() == 0.0
        assert sample.probabilities[sample.likeliest == tokenizer.to_language_token("am")].sum() >= LANGUAGE_WEIGHT


def test_what_is_speech_alone_is_learnt_beside_texts(model: whisper.Whisper) -> None:
    whole = sample_of(40)
    alone = replace(
        whole, tokens=whole.tokens[:1], likeliest=whole.likeliest[:1], probabilities=whole.probabilities[:1]
    )
    both = [loss_of(model, [one]).item() for one in (whole, alone)]
    counted = np.array([len(whole.likeliest), 1])
    assert loss_of(model, [whole, alone]).item() == pytest.approx(
        float(np.dot(both, counted) / counted.sum()), rel=1e-4
    )


def test_of_a_sound_nothing_is_written(drawn: list[Sample], tokenizer: Tokenizer) -> None:
    for sample in (sample for sample in drawn if not words(sample)):
        assert sample.likeliest[:, 0].tolist() == [tokenizer.no_speech, tokenizer.eot]
        assert sample.probabilities[:, 0].tolist() == [1.0, 1.0]


def test_of_joined_clips_all_is_written_in_the_language_that_is_known(drawn: list[Sample]) -> None:
    for sample in (sample for sample in drawn if len(words(sample)) > 1):
        text = list(sample.tokens[PROMPT:])
        assert sample.likeliest[:, 0].tolist() == [sample.tokens[1], *text, 50257]
        assert sample.probabilities[:, 0].tolist() == [1.0] * (len(text) + 2)


def test_of_a_clip_the_teachers_own_doubts_are_learnt(drawn: list[Sample]) -> None:
    for sample in (sample for sample in drawn if len(words(sample)) == 1):
        language, heard = sample.probabilities[0], sample.probabilities[1:]
        assert language[sample.likeliest[0] == sample.tokens[1]].sum() >= LANGUAGE_WEIGHT
        np.testing.assert_allclose(heard[:, 0], 0.75, atol=0.01)
        assert sample.likeliest[2:, 0].tolist() == list(sample.tokens[PROMPT:])


def test_the_same_draw_gives_the_same_samples(samples: Samples, drawn: list[Sample]) -> None:
    for one, other in zip(drawn[:6], samples.drawn(np.random.default_rng(0)), strict=False):
        np.testing.assert_array_equal(one.mel, other.mel)
        assert (one.tokens, one.tail) == (other.tokens, other.tail)
    assert next(samples.drawn(np.random.default_rng(1))).mel.shape != drawn[0].mel.shape


def test_a_sound_behind_speech_is_weaker_by_0_to_25_decibels_and_never_clips() -> None:
    time = np.arange(16_000) / 16_000
    speech = (0.9 * np.sin(2 * np.pi * 300 * time)).astype(np.float32)
    ratios = []
    for seed in range(12):
        heard = mixed(np.random.default_rng(seed), speech, [], often=1.0)
        assert heard.dtype == np.float32
        assert np.abs(heard).max() <= 1.0
        scale = float(np.dot(heard, speech) / np.dot(speech, speech))
        rest = float(np.sqrt(np.mean((heard - scale * speech) ** 2)))
        ratios.append(rest / (scale * float(np.sqrt(np.mean(speech**2)))))
    heard_behind = [ratio for ratio in ratios if ratio > 1e-3]  # the sound may be silence
    assert len(heard_behind) >= 8
    assert max(ratios) < 1.1
    assert min(heard_behind) < 0.25
    np.testing.assert_array_equal(mixed(np.random.default_rng(0), speech, [], often=0.0), speech)


# --- Batches ----------------------------------------------------------------------------------------------------------


def sample_of(frames: int, tail: int = 50, text: tuple[int, ...] = (7, 8, 9), seed: int = 0) -> Sample:
    """For a small Whisper: its vocabulary has 64 tokens, and the text is certain."""
    tokens = (1, 2, 3, 4, *text)
    places = (2, *text, 5)
    likeliest = np.zeros((len(places), LIKELIEST), np.int64)
    probabilities = np.zeros((len(places), LIKELIEST), np.float32)
    likeliest[:, 0], probabilities[:, 0] = places, 1.0
    mel = np.random.default_rng(seed).standard_normal((BANDS, frames)).astype(np.float32)
    return Sample(mel, -1.5, tail, tokens, likeliest, probabilities)


def endless(draw: np.random.Generator) -> Iterator[Sample]:
    while True:
        yield sample_of(int(draw.integers(30, 2900)), int(draw.integers(*LONG_TAIL)))


def test_batches_are_bounded_and_of_like_length() -> None:
    drawn: list[list[Sample]] = []
    batch = batches(endless(np.random.default_rng(0)), np.random.default_rng(0))
    while sum(map(len, drawn)) < 2 * POOL:
        drawn.append(next(batch))
    assert sum(map(len, drawn)) == 2 * POOL
    longest = [max(sample.frames for sample in group) for group in drawn]
    assert all(len(group) * most <= BATCH_FRAMES for group, most in zip(drawn, longest, strict=True))
    encoded = sum(len(group) * most for group, most in zip(drawn, longest, strict=True))
    assert encoded < 1.2 * sum(sample.frames for group in drawn for sample in group)
    assert longest != sorted(longest)


def test_every_sample_of_a_pool_is_learnt_once() -> None:
    pool = [sample_of(40 + 10 * place) for place in range(POOL)]
    batch = batches(iter(pool + pool), np.random.default_rng(0))
    seen: list[int] = []
    while len(seen) < POOL:
        seen += [sample.frames for sample in next(batch)]
    assert sorted(seen) == sorted(sample.frames for sample in pool)


# --- Adapters ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Whisper, float32; its last norm is large enough for a token to be likely."""
    written = write_whisper(tmp_path_factory.mktemp("small") / "whisper", WIDTH, LAYERS, decoder_layers=1)
    norm = {"decoder/layer_norm/gamma": np.full(WIDTH, 3.0, np.float32)}
    write_arrays(written / "model.bin", read_arrays(written / "model.bin") | norm)
    return written


@pytest.fixture
def model(folder: Path) -> whisper.Whisper:
    return load_openai_whisper(folder)


def test_an_adapter_changes_nothing_at_first_and_then_adds_its_product() -> None:
    torch.manual_seed(0)
    layer, inputs = nn.Linear(6, 4), torch.randn(3, 6)
    adapter = LowRank(layer, 2)
    assert torch.equal(adapter(inputs), layer(inputs))
    adapter.up.data.normal_()
    wanted = nn.functional.linear(inputs, layer.weight + adapter.up @ adapter.down, layer.bias)
    torch.testing.assert_close(adapter(inputs), wanted)


def test_adapters_are_on_every_matrix_but_those_of_the_layers_that_emotion_reads(
    model: whisper.Whisper, folder: Path
) -> None:
    names = set(dict(renamed(read_arrays(folder / "model.bin"))))
    before = loss_of(model, [sample_of(40)]).item()
    adapters = add_adapters(model, rank=2)
    encoder = {f"encoder.blocks.{FROZEN_LAYERS}.{part}.weight" for part in ("mlp.0", "mlp.2")}
    encoder |= {f"encoder.blocks.{FROZEN_LAYERS}.attn.{part}.weight" for part in ("query", "key", "value", "out")}
    decoder = {name.replace(f"encoder.blocks.{FROZEN_LAYERS}", "decoder.blocks.0") for name in encoder}
    decoder |= {name.replace("attn", "cross_attn") for name in decoder if "attn" in name}
    assert set(adapters) == encoder | decoder
    assert set(adapters) <= names
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {name.rpartition(".")[2] for name in learning} == {"up", "down"}
    assert loss_of(model, [sample_of(40)]).item() == pytest.approx(before)


# --- Learning ---------------------------------------------------------------------------------------------------------


def test_the_encoder_is_whispers_own_with_less_behind_the_speech(model: whisper.Whisper) -> None:
    short = sample_of(101, tail=20)
    assert encode(model, [short]).shape == (1, 61, WIDTH)
    whole = sample_of(2990, tail=300)
    padded = np.full((BANDS, 3000), whole.silence, np.float32)
    padded[:, :2990] = whole.mel
    with torch.inference_mode():
        wanted = model.encoder(torch.from_numpy(padded[None]))
        torch.testing.assert_close(encode(model, [whole]), wanted, atol=1e-4, rtol=1e-4)


def test_the_loss_is_whispers_own_cross_entropy(model: whisper.Whisper) -> None:
    sample = sample_of(60)
    with torch.inference_mode():
        logits = model.logits(torch.tensor([sample.tokens]), encode(model, [sample]))[0].log_softmax(-1)
        wanted = -logits[[0, 3, 4, 5, 6], [2, 7, 8, 9, 5]].mean()
        assert loss_of(model, [sample]).item() == pytest.approx(wanted.item(), rel=1e-4)


def test_a_longer_text_beside_it_changes_no_loss(model: whisper.Whisper) -> None:
    """The mean is over places, not over samples."""
    short, long = sample_of(60), sample_of(60, text=tuple(range(20, 40)), seed=1)
    with torch.inference_mode():
        alone = [loss_of(model, [sample]).item() for sample in (short, long)]
        together = loss_of(model, [short, long]).item()
    assert together == pytest.approx((5 * alone[0] + 22 * alone[1]) / 27, rel=1e-4)


def learnt(folder: Path, output: Path, steps: int) -> None:
    settings = Fit(steps, learning_rate=3e-2, rank=4, seed=0)
    spoken = (sample_of(20 + 10 * (number % 4), 30, seed=number) for number in range(POOL * steps))
    fit(load_openai_whisper(folder), spoken, settings, output)


def test_learning_lowers_the_loss_of_the_model_that_is_made_of_it(folder: Path, tmp_path: Path) -> None:
    """The file of adapters, put on the base, is the student: without the layers that are read for emotions."""
    adapter, adapted = tmp_path / "adapter.safetensors", tmp_path / "model"
    learnt(folder, adapter, steps=30)
    adapted.mkdir()
    adapt(folder / "model.bin", adapter, adapted / "model.bin")
    (adapted / "config.json").write_bytes((folder / "config.json").read_bytes())
    unheard = [sample_of(50, 30, seed=10_000 + number) for number in range(4)]
    with torch.inference_mode():
        before, after = (loss_of(load_openai_whisper(place), unheard).item() for place in (folder, adapted))
    assert after < 0.9 * before
    ours, theirs = (dict(renamed(read_arrays(place / "model.bin"))) for place in (folder, adapted))
    changed = {name for name, values in ours.items() if not np.array_equal(theirs[name], values)}
    encoder = {name for name in changed if name.startswith("encoder")}
    assert encoder
    assert all(name.startswith(f"encoder.blocks.{FROZEN_LAYERS}.") for name in encoder)
    assert any(name.startswith("decoder.blocks.0.cross_attn") for name in changed)
    assert "decoder.token_embedding.weight" not in changed


def test_the_same_seed_learns_the_same(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        learnt(folder, tmp_path / name, steps=2)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_the_mean_of_adapters_is_the_mean_of_what_they_change(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    files = []
    for number in range(2):
        files.append(tmp_path / f"{number}.safetensors")
        parts = {"w.up": random.normal(size=(24, 4)), "w.down": random.normal(size=(4, 16))}
        save_file({name: values.astype(np.float16) for name, values in parts.items()}, files[-1])
    changes = [part["w.up"].astype(float) @ part["w.down"].astype(float) for part in map(load_file, files)]
    average([files[0], *files], tmp_path / "mean.safetensors")
    mean = load_file(tmp_path / "mean.safetensors")
    assert (mean["w.up"].shape, mean["w.down"].dtype) == ((24, 12), np.float16)
    np.testing.assert_allclose(
        mean["w.up"].astype(float) @ mean["w.down"].astype(float), (2 * changes[0] + changes[1]) / 3, atol=0.02
    )
    average(files, tmp_path / "cut.safetensors", rank=2)
    assert load_file(tmp_path / "cut.safetensors")["w.up"].shape == (24, 2)


def test_adapters_of_other_matrices_are_not_averaged(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({f"{name}.up": np.zeros((2, 1)), f"{name}.down": np.zeros((1, 2))}, tmp_path / name)
    with pytest.raises(AdaptersDiffer, match="not of the same matrices"):
        average([tmp_path / "a", tmp_path / "b"], tmp_path / "mean.safetensors")
