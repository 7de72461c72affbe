"""Audio files → waveform, for devices and for the gateway alike: the one part of `amser` that needs PyAV.

`containers` tells formats apart and refuses headers that claim the impossible; `decoding` lets FFmpeg decode the rest.
"""

from amser.audio.containers import CODECS, DEMUXERS, FORMATS, DamagedAudio, UnknownFormat, UnreadableAudio
from amser.audio.decoding import AudioTooCostly, AudioTooLong, decode, decode_to, read

__all__ = [
    "CODECS",
    "FORMATS",
    "DEMUXERS",
    "AudioTooCostly",
    "AudioTooLong",
    "DamagedAudio",
    "UnknownFormat",
    "UnreadableAudio",
    "decode",
    "decode_to",
    "read",
]
