"""Audio files → waveform, for devices and for the gateway alike: the one part of `amser` that needs PyAV.

`containers` tells formats apart. `headers`, `ogg`, `matroska`, `amr` and `frame_heads` read what FFmpeg believes, or
passes over in silence. `frames` and `mixing` take what it decodes, `tracks` chooses one of several, and `decoding` puts
them together.
"""

from amser.audio.containers import (
    CODECS,
    DEMUXERS,
    FORMATS,
    DamagedAudio,
    NoSound,
    UnknownCodec,
    UnknownFormat,
    UnreadableAudio,
)
from amser.audio.decoding import AudioTooLong, AudioWarning, Blocks, Recording, blocks, decode, read
from amser.audio.frames import AudioTooCostly, decoder_of

__all__ = [
    "CODECS",
    "DEMUXERS",
    "FORMATS",
    "AudioTooCostly",
    "AudioTooLong",
    "AudioWarning",
    "Blocks",
    "DamagedAudio",
    "NoSound",
    "Recording",
    "UnknownCodec",
    "UnknownFormat",
    "UnreadableAudio",
    "blocks",
    "decode",
    "decoder_of",
    "read",
]
