"""Headers that lie about a length: what they stand in front of is a stream up to its real end."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from recordings import Waveform, audio_file, noise

from amser import audio
from amser.features import SAMPLE_RATE

LIES = [0, 1, 77, 0x7F00_0000, 0x7FFF_F000, 0x7FFF_FFD4, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1_000_000_000]
LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT\x0e\0\0\0Lavf60.16.100\0"


@pytest.fixture(scope="module")
def clip() -> Waveform:
    return noise(1.5)


def sound(kind: str, subtype: str) -> Callable[[Waveform], bytes]:
    def written(clip: Waveform) -> bytes:
        content = io.BytesIO()
        soundfile.write(content, clip, SAMPLE_RATE, subtype, format=kind)
        return content.getvalue()

    return written


def patched(content: bytes, name: bytes, offset: int, claimed: int, form: str) -> bytes:
    """With another number behind a chunk's name."""
    changed = bytearray(content)
    width = struct.calcsize(form)
    struct.pack_into(form, changed, changed.index(name) + offset, claimed % (1 << 8 * width))
    return bytes(changed)


FIELDS = {  # how a file is made, where its length stands
    "wav": (sound("WAV", "PCM_16"), b"data", 4, "<I"),
    "wav of floats": (sound("WAV", "FLOAT"), b"data", 4, "<I"),
    "rf64": (sound("RF64", "PCM_16"), b"ds64", 16, "<Q"),
    "w64": (sound("W64", "PCM_16"), b"data\xf3\xac\xd3\x11", 16, "<Q"),
    "aiff": (sound("AIFF", "PCM_16"), b"SSND", 4, ">I"),
    "au": (sound("AU", "PCM_16"), b".snd", 8, ">I"),
    "caf": (sound("CAF", "PCM_16"), b"data", 4, ">Q"),
}


@pytest.mark.parametrize("claimed", LIES)
@pytest.mark.parametrize("made", FIELDS.values(), ids=FIELDS)
def test_a_length_that_is_no_length_is_a_stream(
    clip: Waveform, made: tuple[Callable[[Waveform], bytes], bytes, int, str], claimed: int
) -> None:
    write, name, offset, form = made
    content = patched(write(clip), name, offset, claimed, form)
    heard = audio.decode(io.BytesIO(content))
    assert heard.waveform.size == clip.size
    np.testing.assert_allclose(heard.waveform, clip, atol=2 / 32768)
    assert heard.warnings == (("audio_cut",) if claimed == 1_000_000_000 else ())


@pytest.mark.parametrize("made", FIELDS.values(), ids=FIELDS)
def test_a_file_that_ends_before_its_length_is_cut(
    clip: Waveform, made: tuple[Callable[[Waveform], bytes], bytes, int, str]
) -> None:
    content = made[0](clip)
    heard = audio.decode(io.BytesIO(content[: len(content) * 2 // 3]))
    assert 0.6 * clip.size < heard.waveform.size < 0.7 * clip.size
    np.testing.assert_allclose(heard.waveform, clip[: heard.waveform.size], atol=2 / 32768)
    assert heard.warnings == ("audio_cut",)


@pytest.mark.parametrize("field", [b"RIFF", b"data"])
def test_the_length_of_a_wav_counts_where_the_file_has_as_many_bytes(clip: Waveform, field: bytes) -> None:
    """What stands behind the samples is no sound, whatever the whole file claims."""
    content = audio_file(clip, "wav", "pcm_s16le") + LIST
    if field == b"RIFF":
        content = patched(content, b"RIFF", 4, 0xFFFF_FFFF, "<I")
    heard = audio.decode(io.BytesIO(content))
    assert (heard.waveform.size, heard.warnings) == (clip.size, ())


def test_a_wav_without_samples_stays_one_where_another_chunk_follows() -> None:
    empty = audio_file(noise(0.1), "wav", "pcm_s16le")
    at = empty.index(b"data")
    heard = audio.decode(io.BytesIO(empty[:at] + b"data" + bytes(4) + LIST * 40))
    assert heard.waveform.size == 0


def test_the_tables_of_a_caf_may_stand_behind_its_samples(clip: Waveform) -> None:
    content = audio_file(clip, "caf", "alac")
    assert content.index(b"pakt") > content.index(b"data")
    heard = audio.decode(io.BytesIO(content))
    assert heard.waveform.size == pytest.approx(clip.size, abs=1024)  # FFmpeg's own files lack some of the last frame
    assert heard.warnings == ()


def test_a_tag_may_stand_in_front_of_a_wav(clip: Waveform) -> None:
    tag = b"ID3\x04\0\0\0\0\x01\x01" + bytes(129)
    heard = audio.decode(io.BytesIO(tag + audio_file(clip, "wav", "pcm_s16le")))
    assert (heard.waveform.size, heard.warnings) == (clip.size, ())
