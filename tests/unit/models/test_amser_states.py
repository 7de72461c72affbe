"""The shipped network: voice and text, and what it answers where one of them is missing."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from small_networks import SMALL, answers, as_if_trained, spoken
from torch.nn import functional

from models.emotion.amser_states import AmserStates, StateBranch, TextNetwork, VoiceNetwork, mix_styles
from models.emotion.batch import FusionBatch, UtteranceFeatures, collate
from models.emotion.config import FusionConfig
from models.emotion.registry import build
from models.weights import model_path
from models.whisper.conversion import load_audio_encoder
from models.whisper.engine import LOWER_LAYERS
from training.data.extraction import RECOGNISER
from training.fitting.curriculum import initialise_from_whisper, join

CONFIG = replace(SMALL, model="amser-states", modalities=("states", "words", "context"))
MEL = replace(CONFIG, modalities=("mel", "words", "context"))


def voiceless(frames: int = 120, seed: int = 0) -> UtteranceFeatures:
    return replace(spoken(frames, seed=seed), encoder_states=np.zeros((0, 1536), np.float16))


def wordless(frames: int = 120, seed: int = 0) -> UtteranceFeatures:
    """As the text stages describe an empty text: no words, and the special tokens."""
    return spoken(frames, words=0, context=2, seed=seed)


def overwritten(batch: FusionBatch, *names: str) -> FusionBatch:
    """The batch with other values in some of its fields, and one row more in each."""
    torch.manual_seed(7)
    changes = {}
    for entry in fields(batch):
        value = getattr(batch, entry.name)
        if entry.name not in names:
            continue
        if entry.name == "log_mel":
            changes[entry.name] = 100 * torch.randn_like(value)
        elif entry.name.endswith("_lengths"):
            changes[entry.name] = value + 1
        else:
            changes[entry.name] = 100 * torch.randn(value.shape[0], value.shape[1] + 1, value.shape[2])
    assert changes.keys() == set(names)
    return replace(batch, **changes)


ENSEMBLE = replace(CONFIG, ensemble=True, style_mixing=0.8)


@pytest.fixture(params=[CONFIG, MEL, ENSEMBLE], ids=["states", "mel", "ensemble"])
def network(request: pytest.FixtureRequest) -> AmserStates:
    torch.manual_seed(0)
    built = as_if_trained(build(request.param))
    assert isinstance(built, AmserStates)
    built.voice_weight.fill_(0.8)
    built.text_weight.fill_(1.3)
    return built


@torch.inference_mode()
def test_without_a_voice_the_answer_depends_on_the_words_alone(network: AmserStates) -> None:
    batch = collate([voiceless()])
    output = network(batch)
    changed = network(overwritten(batch, "states", "state_lengths", "log_mel"))
    assert torch.isfinite(output.logits).all()
    torch.testing.assert_close(changed.logits, output.logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(changed.embedding, output.embedding, rtol=1e-5, atol=1e-6)
    other_words = network(collate([replace(voiceless(), words=spoken(9, seed=3).words)]))
    assert not torch.allclose(other_words.logits, output.logits)


@torch.inference_mode()
def test_without_words_the_answer_depends_on_the_voice_alone(network: AmserStates) -> None:
    batch = collate([wordless()])
    output = network(batch)
    changed = network(overwritten(batch, "words", "word_lengths", "context", "context_lengths"))
    assert torch.isfinite(output.logits).all()
    torch.testing.assert_close(changed.logits, output.logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(changed.embedding, output.embedding, rtol=1e-5, atol=1e-6)
    other_voice = network(collate([wordless(seed=4)]))
    assert not torch.allclose(other_voice.logits, output.logits)


def test_an_empty_text_and_no_text_at_all_are_the_same(network: AmserStates) -> None:
    nothing = replace(wordless(), context=np.zeros((0, 24), np.float32))
    for one, other in zip(answers(network, [wordless()]), answers(network, [nothing]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_utterances_with_and_without_voice_or_words_may_share_a_batch(network: AmserStates) -> None:
    silent = replace(wordless(80), encoder_states=np.zeros((0, 1536), np.float16))
    several = [spoken(90, seed=1), voiceless(150, seed=2), wordless(60, seed=3), silent]
    together, _ = answers(network, several)
    alone = torch.cat([answers(network, [each])[0] for each in several])
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_the_weighted_log_probabilities_of_voice_and_text_are_added_where_they_are_present(
    network: AmserStates,
) -> None:
    batch = collate([spoken(90, seed=1), voiceless(150, seed=2), wordless(60, seed=3)])
    voice = 0.8 * network.voice(batch).logits.log_softmax(1)
    text = 1.3 * network.text(batch).logits.log_softmax(1)
    expected = torch.stack((voice[0] + text[0], text[1], voice[2]))
    torch.testing.assert_close(network(batch).logits, expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_voice_reads_states_or_mel() -> None:
    torch.manual_seed(0)
    one, other = spoken(121), spoken(121, seed=1)
    for modalities in (("states",), ("mel",)):
        network = as_if_trained(build(replace(SMALL, model="voice", modalities=modalities)))
        assert network.modalities == modalities
        logits = network(collate([one])).logits
        for name, changed in (
            ("states", replace(one, encoder_states=other.encoder_states)),
            ("mel", replace(one, log_mel=other.log_mel)),
        ):
            differs = not torch.allclose(network(collate([changed])).logits, logits)
            assert differs == (name in modalities)


@torch.inference_mode()
def test_an_ensemble_answers_with_the_mean_of_the_probabilities_of_its_members() -> None:
    torch.manual_seed(0)
    network = as_if_trained(build(replace(ENSEMBLE, model="voice")))
    assert isinstance(network, VoiceNetwork)
    assert network.shallow is not None
    assert network.statistics is not None
    torch.nn.init.normal_(network.statistics.predictor.weight)
    batch = collate([spoken(121), spoken(90, seed=1)])
    expected = network(batch).logits.softmax(1)
    members = (
        network.deep(batch).logits,
        network.shallow(batch).logits,
        network.statistics(batch.states, batch.state_lengths),
    )
    mean = torch.stack([logits.softmax(1) for logits in members]).mean(0)
    torch.testing.assert_close(expected, mean)


def test_an_ensemble_learns_from_the_logits_of_each_member() -> None:
    torch.manual_seed(0)
    network = build(replace(ENSEMBLE, model="voice")).train()
    assert network(collate([spoken(121), spoken(90, seed=1)])).logits.shape == (6, len(CONFIG.classes))


def test_mixing_styles_keeps_the_shape_of_a_sequence_and_moves_its_statistics_between_two() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([30, 20])
    states = torch.randn(2, 30, 512) * torch.tensor([1.0, 3.0])[:, None, None] + torch.tensor([0.0, 5.0])[:, None, None]
    states[1, 20:] = 0
    mixed = [mix_styles(states, lengths, 1.0) for _ in range(40)]
    assert all(not each[1, 20:].any() for each in mixed)
    means = torch.stack([each[0].mean() for each in mixed])
    assert means.min() >= states[0].mean() - 0.01
    assert means.max() <= states[0].mean() + 0.51 * (states[1, :20].mean() - states[0].mean())
    assert means.max() > states[0].mean() + 0.5
    changed = mixed[int(means.argmax())][0, :, 0]
    assert torch.corrcoef(torch.stack((changed, states[0, :, 0])))[0, 1] > 0.999
    torch.testing.assert_close(mix_styles(states, lengths, 0.0), states, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", ["voice", "amser-states"])
@pytest.mark.parametrize("voice", [(), ("states", "mel")])
def test_a_voice_that_reads_neither_states_nor_mel_or_both_is_refused(model: str, voice: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="reads states or mel"):
        build(replace(SMALL, model=model, modalities=(*voice, "words", "context")))


def test_an_ensemble_that_reads_the_mel_is_refused() -> None:
    with pytest.raises(ValueError, match="read states, not mel"):
        build(replace(MEL, model="voice", ensemble=True))


@torch.inference_mode()
def test_a_joined_network_keeps_the_logits_of_voice_and_text() -> None:
    torch.manual_seed(0)
    voice = as_if_trained(build(replace(ENSEMBLE, model="voice")))
    text = as_if_trained(build(replace(CONFIG, model="text")))
    assert isinstance(voice, VoiceNetwork)
    assert isinstance(text, TextNetwork)
    network = join(voice, text, voice_temperature=2.0, text_temperature=4.0).eval()
    batch = collate([spoken(121), spoken(90, seed=1)])
    assert network.config == replace(ENSEMBLE, model="amser-states")
    torch.testing.assert_close(network.voice(batch).logits, voice(batch).logits, rtol=0, atol=0)
    torch.testing.assert_close(network.text(batch).logits, text(batch).logits, rtol=0, atol=0)
    assert (float(network.voice_weight), float(network.text_weight)) == (0.5, 0.25)


def test_a_joined_network_takes_the_width_of_its_text() -> None:
    voice = build(replace(CONFIG, model="voice", context_width=768))
    text = build(replace(CONFIG, model="text", context_width=40))
    assert isinstance(voice, VoiceNetwork)
    assert isinstance(text, TextNetwork)
    assert join(voice, text).config.context_width == 40


def branch_of(network: VoiceNetwork) -> StateBranch:
    assert network.deep.states is not None
    return network.deep.states


@torch.inference_mode()
def test_the_layers_begin_as_whispers_next_ones() -> None:
    model = model_path(RECOGNISER)
    torch.manual_seed(0)
    network = build(replace(CONFIG, model="voice", state_layers=2, state_heads=8))
    assert isinstance(network, VoiceNetwork)
    initialise_from_whisper(network, RECOGNISER)
    network.eval()
    blocks = load_audio_encoder(model, LOWER_LAYERS + 2).blocks[LOWER_LAYERS:]
    ours = theirs = torch.randn(2, 30, 512)
    mask = torch.ones(2, 30, dtype=torch.bool)
    for layer, block in zip(branch_of(network).layers, blocks, strict=True):
        ours, theirs = layer(ours, mask), block(theirs)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert not torch.allclose(ours, functional.layer_norm(ours, (512,)))


@pytest.mark.parametrize("config", [replace(CONFIG, state_layers=0), MEL], ids=["no layers", "no states"])
def test_a_voice_without_such_layers_needs_no_weights(config: FusionConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.fitting.curriculum.model_path", lambda _: pytest.fail("weights were looked for"))
    network = build(replace(config, model="voice"))
    assert isinstance(network, VoiceNetwork)
    before = [value.clone() for value in network.parameters()]
    initialise_from_whisper(network, RECOGNISER)
    assert all(torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))
