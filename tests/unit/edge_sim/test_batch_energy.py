"""What a batch saves of a radio's energy: the table of docs/app-developers.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_sim.exchange import Exchange, simulate
from edge_sim.radio import load_radio

PAGE = Path(__file__).parents[3] / "docs" / "app-developers.md"
ENVELOPE, ANSWER, SERVER_S = 1_700, 900, 0.3  # bytes of an utterance of 5 s and of its answer; 4 are computed at a time
FRAMING = 4  # bytes in front of an envelope, and about as many around an answer


def joules(radio: str, batch: int) -> float:
    """Of the radio, an utterance: 64 of them, one each minute, sent by themselves or so many together."""
    if batch == 1:
        alone = [Exchange(60.0 * minute, ENVELOPE, ANSWER, SERVER_S) for minute in range(64)]
        return simulate(load_radio(radio), alone).radio_joules / 64
    size = (batch * (ENVELOPE + FRAMING), batch * (ANSWER + 5 * FRAMING))
    return simulate(load_radio(radio), [Exchange(0.0, *size, SERVER_S * batch / 4)]).radio_joules / batch


@pytest.mark.parametrize(("radio", "row"), [("lte", "LTE"), ("wifi", "WiFi")])
def test_the_page_has_what_the_radio_takes(radio: str, row: str) -> None:
    (line,) = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {row} |")]
    written = [float(cell.removesuffix(" J ")) for cell in line.split("|")[2:5]]
    assert written == [pytest.approx(joules(radio, batch), rel=0.1) for batch in (1, 8, 64)]
    assert written[0] > 10 * written[2]
