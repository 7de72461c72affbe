"""A conversation and its RTTM file → the turns that the simulated devices speak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from amser.audio import read
from amser.features import SAMPLE_RATE, Float32

MERGED_BELOW_S: Final = 0.3  # a speaker who pauses for less has not ended the turn
SHORTEST_S: Final = 0.4  # below it there is hardly a word


@dataclass(frozen=True, slots=True)
class Turn:
    """What one speaker said without a pause.

    Attributes:
        speaker: the name in the RTTM file.
        start_s, end_s: where in the conversation.
    """

    speaker: str
    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class Speech:
    """A turn and its sound: float32, shape (samples,), mono, 16 kHz."""

    turn: Turn
    waveform: Float32


def read_rttm(text: str) -> list[Turn]:
    """The turns of an RTTM file (NIST Rich Transcription 2009, appendix A), in its order.

    Raises:
        ValueError: a SPEAKER line that is none.
    """
    turns = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        try:
            start, duration, speaker = float(fields[3]), float(fields[4]), fields[7]
        except (IndexError, ValueError):
            raise ValueError(f"line {number} is no SPEAKER line of RTTM: {line!r}") from None
        turns.append(Turn(speaker, start, start + duration))
    return turns


def cut(turns: Sequence[Turn], merged_below_s: float = MERGED_BELOW_S, shortest_s: float = SHORTEST_S) -> list[Turn]:
    """Turns by time of their start: those of one speaker joined across short pauses, very short ones left out."""
    joined: list[Turn] = []
    latest: dict[str, int] = {}  # speaker → index in `joined`: the other speaker may have begun in between
    for turn in sorted(turns, key=lambda turn: turn.start_s):
        index = latest.get(turn.speaker)
        if index is not None and turn.start_s - joined[index].end_s < merged_below_s:
            before = joined[index]
            joined[index] = Turn(turn.speaker, before.start_s, max(before.end_s, turn.end_s))
        else:
            latest[turn.speaker] = len(joined)
            joined.append(turn)
    return [turn for turn in joined if turn.seconds >= shortest_s]


def load(folder: Path) -> list[Speech]:
    """The turns of the sample conversation with their sound.

    Args:
        folder: holds `sample.wav` and `sample.rttm`.

    Raises:
        OSError, ValueError: a file is missing or none of its kind.
    """
    waveform = read(folder / "sample.wav")
    turns = cut(read_rttm((folder / "sample.rttm").read_text()))
    return [
        Speech(turn, waveform[round(turn.start_s * SAMPLE_RATE) : round(turn.end_s * SAMPLE_RATE)]) for turn in turns
    ]
