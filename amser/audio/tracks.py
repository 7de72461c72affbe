"""Of several sound tracks, the one that speaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import InputContainer
from av.packet import Packet

from amser.audio.frames import PACKETS_PER_SECOND, SPARE_PACKETS, decoder_of
from amser.audio.mixing import Mixer
from amser.channels import movement, spectrum_of
from amser.features import SAMPLE_RATE, AudioError, Float32

LISTENED_S: Final = 60  # to the begin of each track
AS_MUCH: Final = 0.7  # of the movement of the liveliest track: languages of the same film differ less
FAINT: Final = 1e-3  # of the loudest amplitude: crosstalk


def the_one_that_speaks(container: InputContainer, indices: Sequence[int]) -> int:
    """The index of the first track whose spectrum moves about as much as that of any: speech moves most.

    Args:
        container: open; it is read.
        indices: of the streams that can be decoded.
    """
    waveforms = _begins(container, indices)
    peaks = [float(np.abs(each).max()) if each.size else 0.0 for each in waveforms]
    movements = [
        movement(spectrum_of(each, SAMPLE_RATE, peak), SAMPLE_RATE) if peak > FAINT * max(peaks) else 0.0
        for each, peak in zip(waveforms, peaks, strict=True)
    ]
    most = max(movements)
    return next(index for index, each in zip(indices, movements, strict=True) if each >= AS_MUCH * most)


def _begins(container: InputContainer, indices: Sequence[int]) -> list[Float32]:
    """The first `LISTENED_S` of each track, shorter ones whole, and none of one that cannot be decoded."""
    decoders = {stream.index: decoder_of(stream) for stream in container.streams.audio if stream.index in indices}
    mixers = {index: Mixer() for index in indices}
    for count, packet in enumerate(_packets(container, indices)):
        mixer, heard = mixers[packet.stream_index], [each.samples for each in mixers.values()]
        if min(heard) > LISTENED_S * SAMPLE_RATE:
            break
        if count > len(indices) * SPARE_PACKETS + PACKETS_PER_SECOND * sum(heard) / SAMPLE_RATE:
            break
        if mixer.samples > LISTENED_S * SAMPLE_RATE:
            continue
        with suppress(av.FFmpegError, AudioError):
            for frame in decoders[packet.stream_index].decode(packet if packet.size else None):
                assert isinstance(frame, AudioFrame)
                mixer.push(frame)
    for mixer in mixers.values():
        mixer.flush()
    return [np.concatenate([np.zeros(0, np.float32), *mixers[index].blocks()]) for index in indices]


def _packets(container: InputContainer, indices: Sequence[int]) -> Iterator[Packet[Any]]:
    """Up to where the container cannot be read."""
    with suppress(av.FFmpegError):
        yield from container.demux([container.streams[index] for index in indices])
