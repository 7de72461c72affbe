"""Small audio files that claim much, or that take long to decode: what `amser.audio` and its workers must withstand."""

from __future__ import annotations

import gzip
import io
import struct

import av
import numpy as np
from recordings import DATA, audio_file, noise

CLAIMED = 80_000_000  # samples


def m4a() -> bytes:
    """A second of noise, as AAC."""
    return audio_file(noise(1), "ipod", "aac")


def wav_of_200_mhz() -> bytes:
    """4 kB of zeros."""
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 200_000_000, 400_000_000, 2, 16)
    body = b"WAVE" + fmt + struct.pack("<4sI", b"data", 4000) + bytes(4000)
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def m4a_claiming(samples: int = CLAIMED, tracks: int = 1) -> bytes:
    """An M4A whose tables claim samples of one byte each, in every track."""
    content = bytearray(m4a())
    for name, fields in ((b"stsz", (1, samples)), (b"stts", (1, samples, 1024)), (b"stsc", (1, 1, samples, 1))):
        struct.pack_into(f">{len(fields)}I", content, content.index(name) + 8, *fields)
    return m4a_of_tracks(tracks, bytes(content))


def m4a_of_tracks(tracks: int, content: bytes) -> bytes:
    """An M4A with its one track repeated."""
    before, moov, after = _around(content, b"moov")
    head, track, tail = _around(moov, b"trak")
    repeated = head[8:] + track * tracks + tail
    return before + struct.pack(">I4s", 8 + len(repeated), b"moov") + repeated + after


def m4a_fragment_claiming(samples: int = CLAIMED) -> bytes:
    """An M4A in fragments, the first of which claims samples of the size that its track states."""
    content = io.BytesIO()
    with av.open(content, "w", format="ipod", options={"movflags": "frag_keyframe+empty_moov"}) as output:
        stream = output.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise(1)[None], "fltp", "mono")
        frame.sample_rate, frame.pts = 16_000, 0
        output.mux([*stream.encode(frame), *stream.encode(None)])
    changed = bytearray(content.getvalue())
    struct.pack_into(">II", changed, changed.index(b"trun") + 4, 1, samples)
    return bytes(changed)


def wav_of_32_channels(seconds: int = 30) -> bytes:
    """8-bit silence at 8 kHz: 7.7 MB that take 240 MB as 32 waveforms. No bomb where there is room for that."""
    samples = bytes([128]) * (32 * 8000 * seconds)
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 32, 8000, 32 * 8000, 32, 8)
    body = b"WAVE" + fmt + struct.pack("<4sI", b"data", len(samples)) + samples
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def matroska_of_one_byte_packets(packets: int = 20_000) -> bytes:
    """8-bit PCM, one sample a packet: 140 kB for 1.25 s."""
    content = audio_file(np.zeros(1600, np.float32), "matroska", "pcm_u8")
    block = b"\xa3\x85\x81" + bytes(2) + b"\x80\x80"  # SimpleBlock: track 1, time 0, key frame, silence
    cluster = b"\xe7\x81\x00" + block * packets  # its time is 0
    return content[: content.rindex(b"\x1f\x43\xb6\x75")] + b"\x1f\x43\xb6\x75\x01" + len(cluster).to_bytes(7) + cluster


def caf_claiming(packets: int = CLAIMED) -> bytes:
    """A CAF whose table of packets claims more of them than it has bytes."""
    content = bytearray(audio_file(noise(1), "caf", "alac"))
    struct.pack_into(">q", content, content.index(b"pakt") + 12, packets)
    return bytes(content)


def aiff_of_channels(channels: int) -> bytes:
    """A second of noise whose header claims other channels."""
    content = bytearray(audio_file(noise(1), "aiff", "pcm_s16be"))
    struct.pack_into(">H", content, content.index(b"COMM") + 8, channels)
    return bytes(content)


def au_of(rate: int, channels: int) -> bytes:
    """4 kB of zeros."""
    return struct.pack(">4s5I", b".snd", 24, 4000, 3, rate, channels) + bytes(4000)


def wav_of_chunks(chunks: int = 500_000) -> bytes:
    """4 MB of chunks without content."""
    return b"RIFF\xff\xff\xff\xffWAVE" + b"junk\0\0\0\0" * chunks


def aac_of_empty_frames(frames: int = 25_000) -> bytes:
    """A second of AAC, and 200 kB of frames with one byte that cannot be decoded."""
    content = audio_file(noise(1), "adts", "aac")
    head, length = bytearray(content[:7]), 8
    head[3], head[4], head[5] = head[3] & 0xFC, length >> 3, (length & 7) << 5 | head[5] & 0x1F
    return content + (bytes(head) + b"\0") * frames


def film_without_sound() -> bytes:
    """Half a second of black pictures."""
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(5):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        output.mux(stream.encode(None))
    return content.getvalue()


def _around(content: bytes, name: bytes) -> tuple[bytes, bytes, bytes]:
    """What stands before a box, the box, and what stands behind it."""
    at = content.index(name) - 4
    end = at + int.from_bytes(content[at : at + 4])
    return content[:at], content[at:end], content[end:]


BOMBS: dict[str, tuple[bytes, str]] = {  # with the name of what they are refused as
    "200 MHz": (wav_of_200_mhz(), "UnsupportedAudio"),
    "LIST chunk of 2 GB": ((DATA / "cases" / "list-chunk-claims-2GB.wav").read_bytes(), "DamagedAudio"),
    "M4A of 80 million samples": (m4a_claiming(), "DamagedAudio"),
    "M4A of six such tracks": (m4a_claiming(tracks=6), "DamagedAudio"),
    "M4A fragment of 80 million samples": (m4a_fragment_claiming(), "DamagedAudio"),
    "M4A of many tracks": (m4a_of_tracks(100, m4a()), "AudioTooCostly"),
    "one-byte packets": (matroska_of_one_byte_packets(), "AudioTooCostly"),
    "empty frames": (aac_of_empty_frames(), "AudioTooCostly"),
    "CAF of 80 million packets": (caf_claiming(), "DamagedAudio"),
    "AIFF of 2 billion channels": (aiff_of_channels(65_535), "UnsupportedAudio"),
    "AU of 200 MHz": (au_of(200_000_000, 1), "UnsupportedAudio"),
    "AU of 2 billion channels": (au_of(16_000, 0x7FFF_FFFF), "UnsupportedAudio"),
    "WAV of chunks": (wav_of_chunks(), "DamagedAudio"),
    "gzip": (gzip.compress(bytes(1 << 20)), "UnknownFormat"),
    "ADPCM": (audio_file(noise(1), "wav", "adpcm_ms"), "UnknownCodec"),
    "ADPCM of games": (audio_file(noise(1), "wav", "adpcm_ima_wav"), "UnknownCodec"),
    "ADPCM of Apple": (audio_file(noise(1), "aiff", "adpcm_ima_qt"), "UnknownCodec"),
}
STATUS_OF_A_BOMB = {
    "UnsupportedAudio": 422, "DamagedAudio": 400, "AudioTooCostly": 422, "UnknownFormat": 415, "UnknownCodec": 415,
}  # fmt: skip
