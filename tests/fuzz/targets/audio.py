"""Audio files: `amser.audio`, which devices use in their own process and the gateway in workers of its own."""

from __future__ import annotations

import functools
import gzip
import io
import resource
from typing import ClassVar, Final

import av
import numpy as np
import soundfile
from audio_bombs import aac_of_empty_frames, m4a_fragment_claiming, wav_of_200_mhz
from recordings import DATA, audio_file, speakers, waveform_of

from amser import audio, codecs
from amser.errors import SignalError
from amser.features import SAMPLE_RATE, Float32, log_mel, validate
from tests.fuzz.targets.base import Target

MAX_FRAMES: Final = 3000
MOST_MB: Final = 512  # of memory; what the gateway allows a file
SHORT: Final = 0.3  # seconds
ENCODED: Final = {  # container and codec, by PyAV's names
    ("wav", "pcm_s16le"), ("wav", "pcm_u8"), ("wav", "pcm_f32le"), ("wav", "pcm_f64le"), ("wav", "pcm_s24le"),
    ("wav", "pcm_alaw"), ("wav", "pcm_mulaw"), ("wav", "adpcm_ms"), ("flac", "flac"), ("mp3", "libmp3lame"),
    ("ogg", "libopus"), ("ogg", "libvorbis"), ("ogg", "flac"), ("ipod", "aac"), ("mp4", "aac"), ("3gp", "aac"),
    ("ipod", "alac"), ("adts", "aac"), ("webm", "libopus"), ("webm", "libvorbis"), ("matroska", "pcm_s16le"),
    ("w64", "pcm_s16le"), ("aiff", "pcm_s16be"), ("au", "pcm_s16be"), ("caf", "pcm_s16le"),
    ("amr", "libopencore_amrnb"),
}  # fmt: skip
BY_SOUNDFILE: Final = (("RF64", "PCM_16"), ("WAVEX", "PCM_24"), ("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"))
SMALL: Final = 40_000  # bytes of a file of tests/data that is a seed


@functools.cache
def files() -> tuple[bytes, ...]:
    """A third of a second of speech in everything that encodes here, files of tests/data, and small bombs."""
    speech = waveform_of(speakers(1)[0]["path"])[: int(SHORT * SAMPLE_RATE)]
    made = [path.read_bytes() for path in sorted((DATA / "cases").iterdir()) if path.stat().st_size < SMALL]
    for container, codec in sorted(ENCODED):
        rate = 48_000 if codec == "libopus" else 8000 if "amr" in codec else SAMPLE_RATE
        try:
            made.append(audio_file(speech, container, codec, rate))
        except (av.FFmpegError, ValueError):  # not in this build of FFmpeg
            continue
    for kind, subtype in BY_SOUNDFILE:
        content = io.BytesIO()
        soundfile.write(content, np.stack([speech, -speech], axis=1), SAMPLE_RATE, subtype, format=kind)
        made.append(content.getvalue())
    made += [two_tracks(speech), made[0] + made[1]]
    made += [wav_of_200_mhz(), m4a_fragment_claiming(), aac_of_empty_frames(200), film(speech)]
    made += [gzip.compress(made[0]), b"#EXTM3U\nfile:///etc/passwd\n", b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + made[1]]
    return tuple(made)


def film(speech: Float32) -> bytes:
    """Pictures with sound."""
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as output:
        picture, sound = output.add_stream("mpeg4", rate=10), output.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        picture.width = picture.height = 32
        picture.pix_fmt = "yuv420p"
        for _ in range(3):
            output.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
        output.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray(speech[None].astype(np.float32), "fltp", "mono")
        frame.sample_rate = SAMPLE_RATE
        output.mux([*sound.encode(frame), *sound.encode(None)])
    return content.getvalue()


def two_tracks(speech: Float32) -> bytes:
    """Silence, and speech beside it."""
    content = io.BytesIO()
    with av.open(content, "w", format="matroska") as output:
        streams = [output.add_stream("aac", rate=SAMPLE_RATE, layout="mono") for _ in range(2)]
        for stream, samples in zip(streams, (speech * 0, speech), strict=True):
            frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), "fltp", "mono")
            frame.sample_rate = SAMPLE_RATE
            output.mux([*stream.encode(frame), *stream.encode(None)])
    return content.getvalue()


TOKENS: Final = (
    b"FORM", b"AIFF", b"AIFC", b"COMM", b"SSND", b"sowt", b"caff", b"desc", b"kuki", b"pakt", b".snd", b"#!AMR\n",
    b"#!AMR-WB\n", b"riff\x2e\x91\xcf\x11", b"Speex   ", b"samr", b"sawb", b"alac", b"dOps", b"A_AAC", b"A_FLAC",
    b"\x18\x53\x80\x67", b"\xec", b"\xa0", b"\xa1",
    b"RIFF", b"RF64", b"ds64", b"WAVE", b"fmt ", b"data", b"LIST", b"fact", b"fLaC", b"OggS", b"OpusHead",
    b"\x01vorbis",
    b"ID3", b"ftyp", b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"stsz", b"stz2", b"stts", b"stsc", b"stco",
    b"co64", b"mdat", b"moof", b"traf", b"trun", b"tfhd", b"esds", b"mp4a", b"elst", b"mvex", b"\xff\xf1", b"\xff\xfb",
    b"\x1a\x45\xdf\xa3", b"\x1f\x43\xb6\x75", b"\xa3", b"\x16\x54\xae\x6b", b"A_OPUS", b"Xing",
)  # fmt: skip


class Files(Target):
    """In this process, as on a device: where FFmpeg dies, so does whatever else the device was about to do."""

    name: ClassVar[str] = "audio"
    tokens: ClassVar[tuple[bytes, ...]] = TOKENS
    slowest_s: ClassVar[float] = 5.0  # of computing; what the gateway allows
    address_space: ClassVar[int | None] = 8 << 30  # a bomb is to end this process and not the machine

    def seeds(self) -> list[bytes]:
        return list(files())

    def accepts(self, data: bytes) -> bool:
        before = _peak_mb()
        try:
            heard = audio.decode(io.BytesIO(data), MAX_FRAMES)
            check(heard)
            encoded = codecs.encode(log_mel(validate(heard.waveform)))
        except SignalError:
            return False
        finally:
            grown = _peak_mb() - before
            assert grown <= MOST_MB, f"{len(data)} bytes took {grown} MB"
        return bool(encoded.payload)


def check(heard: audio.Recording) -> None:
    assert heard.format in audio.DEMUXERS
    waveform = heard.waveform
    assert waveform.ndim == 1
    assert waveform.dtype == np.float32
    assert waveform.size < (MAX_FRAMES + 1) * 160, "longer than was asked for"


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
