"""A recorded conversation and who speaks when in it (RTTM) → the turns that simulated devices say."""

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
    """What one speaker of a conversation says without a pause, and when. `amser.client.turns.SentTurn` has an answer.

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
class SpokenTurn:
    """A turn and its waveform: float32, shape (samples,), mono, 16 kHz."""

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


def whole_turns(
    turns: Sequence[Turn], merged_below_s: float = MERGED_BELOW_S, shortest_s: float = SHORTEST_S
) -> list[Turn]:
    """Turns in order of their start: one speaker's are joined across short pauses, very short ones are left out."""
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


def load_conversation(folder: Path) -> list[SpokenTurn]:
    """The turns of the sample conversation with their waveforms.

    Args:
        folder: holds `sample.wav` and `sample.rttm`.

    Raises:
        OSError, ValueError: a file is missing or none of its kind.
    """
    waveform = read(folder / "sample.wav")
    turns = whole_turns(read_rttm((folder / "sample.rttm").read_text()))
    return [
        SpokenTurn(turn, waveform[round(turn.start_s * SAMPLE_RATE) : round(turn.end_s * SAMPLE_RATE)])
        for turn in turns
    ]
