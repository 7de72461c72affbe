"""Files that claim the impossible cost next to nothing, and codecs that no recorder uses stay closed."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from audio_bombs import BOMBS, m4a, m4a_of_tracks, matroska_of_one_byte_packets
from recordings import audio_file, noise

from amser import audio
from amser.audio import CODECS, AudioTooCostly, UnknownCodec
from amser.features import SAMPLE_RATE

MEASURE = """
import io, resource, sys, time
from amser import audio
from amser.features import AudioError
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    audio.decode(io.BytesIO(sys.stdin.buffer.read()))
except AudioError as error:
    print(type(error).__name__)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.process_time() - began)
"""


@pytest.mark.parametrize(("content", "error"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_before_it_takes_memory_or_time(content: bytes, error: str) -> None:
    child = subprocess.run([sys.executable, "-c", MEASURE], input=content, capture_output=True, check=True, timeout=300)
    outcome, kilobytes, seconds = child.stdout.decode().split()
    assert outcome == error
    assert int(kilobytes) < 20 * 1024
    assert float(seconds) < 1


@pytest.mark.parametrize(
    ("container", "codec", "named"),
    [("wav", "adpcm_ms", "WAV file is adpcm_ms"), ("mov", "adpcm_ima_qt", "M4A file is adpcm_ima_qt")],
)
def test_a_codec_that_is_not_read_is_named_with_those_that_are(container: str, codec: str, named: str) -> None:
    with pytest.raises(UnknownCodec, match=named) as refused:
        audio.decode(io.BytesIO(audio_file(noise(1), container, codec)))
    assert refused.value.limit == CODECS == "PCM, FLAC, ALAC, MP3, Vorbis, Opus, AAC, Speex, AMR-NB, AMR-WB"


@pytest.mark.parametrize(
    "codec", ["pcm_u8", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_alaw", "pcm_mulaw", "libmp3lame"]
)
def test_a_wav_of_an_accepted_codec_is_read(codec: str) -> None:
    heard = audio.decode(io.BytesIO(audio_file(noise(1), "wav", codec)))
    assert (heard.format, heard.waveform.size) == ("wav", pytest.approx(SAMPLE_RATE, rel=0.1))


def test_an_m4a_of_several_tracks_is_read() -> None:
    """The first of them, as long as there are no more than a film has."""
    content = m4a()
    heard = audio.decode(io.BytesIO(m4a_of_tracks(16, content)))
    assert (heard.waveform == audio.decode(io.BytesIO(content)).waveform).all()
    with pytest.raises(AudioTooCostly, match="too many streams; accepted: 16 streams"):
        audio.decode(io.BytesIO(m4a_of_tracks(17, content)))


def test_packets_are_counted_against_the_audio_in_them() -> None:
    with pytest.raises(AudioTooCostly, match=r"packets hold 0\.\d+ s of audio; accepted: up to 2000 packets a second"):
        audio.decode(io.BytesIO(matroska_of_one_byte_packets()))
    assert audio.decode(io.BytesIO(matroska_of_one_byte_packets(4000))).waveform.size == 4000


def test_a_bomb_costs_a_batch_no_other_file(tmp_path: Path) -> None:
    files = {
        "first.wav": audio_file(noise(1), "wav", "pcm_s16le"),
        **{f"{place}.m4a": content for place, (content, _) in enumerate(BOMBS.values())},
        "last.wav": audio_file(noise(1), "wav", "pcm_s16le"),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-m", "amser", "encode", *(str(tmp_path / name) for name in files), "-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert sorted(file.name for file in tmp_path.glob("*.amser")) == ["first.amser", "last.amser"]
    assert len(done.stderr.splitlines()) == len(BOMBS)
