"""The playground in headless Chromium, with a recording as its microphone and a cluster whose answers are made up.

`tests/local/test_playground.py` has the same page in front of the models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from browser import Site, chromium, site
from fastapi.responses import FileResponse
from javascript import CALLS, from_javascript, to_javascript_call
from recordings import Waveform
from starlette.routing import Route

from amser import wire
from amser.codecs import encode
from amser.features import SAMPLE_RATE, log_mel

SPEAKERS = 3
PAUSE_S = 1.2
PATIENCE_MS = 120_000  # of a busy machine
GOLDEN = json.loads((Path(__file__).parents[1] / "amser" / "klt_golden.json").read_text(encoding="utf-8"))["payloads"]
SCRIPT_MS = 5  # of the page's own thread, a second of speech


@pytest.fixture(scope="module")
def recording(speech: list[Waveform], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three speakers with pauses between them, as a microphone of 48 kHz or a file gives it."""
    path = tmp_path_factory.mktemp("web") / "three speakers.wav"
    pause = np.zeros(int(PAUSE_S * SAMPLE_RATE), np.float32)
    soundfile.write(path, np.concatenate([each for clip in speech[:SPEAKERS] for each in (clip, pause)]), SAMPLE_RATE)
    return path


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    async def calls(_: Any) -> FileResponse:
        return FileResponse(CALLS, media_type="text/javascript")

    with site([Route("/calls.mjs", calls)]) as running:
        yield running


@pytest.fixture(scope="module")
def browser(recording: Path) -> Iterator[Any]:
    with chromium(recording) as opened:
        yield opened


@pytest.fixture
def page(browser: Any, served: Site) -> Iterator[Any]:
    """The page, opened anew; whatever goes wrong in it, or goes elsewhere, fails the test."""
    served.received.clear()
    served.keys.clear()
    served.refuse.clear()
    served.cuts.clear()
    served.has_sockets, served.connections = True, 0
    context = browser.new_context(permissions=["microphone"], base_url=served.url)
    opened = context.new_page()
    trouble: list[str] = []
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on("request", lambda request: request.url.startswith((served.url, "data:")) or trouble.append(request.url))
    opened.goto("/")
    yield opened
    context.close()
    assert trouble == []


def finished(page: Any) -> None:
    page.get_by_text("Done.", exact=True).wait_for(timeout=PATIENCE_MS)


def open_file(page: Any, path: Path) -> None:
    page.set_input_files("#file", path)


def test_golden_vectors_are_equal_in_the_browser(page: Any, speech: list[Waveform]) -> None:
    mels = [log_mel(waveform) for waveform in speech[:2]]
    given = [(mel, step) for mel in mels for step in ("low", "standard", "robust", 0)]
    calls = [to_javascript_call(["encode", mel, step]) for mel, step in given]
    run = """async (calls) => {
        const [codec, { answer }] = await Promise.all([import("/web/amser-codec.js"), import("/calls.mjs")]);
        return answer(codec, calls);
    }"""
    written = [from_javascript(each) for each in page.evaluate(run, calls)]
    assert written == [encode(mel, "klt", step=step).payload for mel, step in given]
    payload = bytes.fromhex(GOLDEN["standard"]["payload"])
    (golden,) = page.evaluate(run, [to_javascript_call(["decode", payload, 40])])
    assert from_javascript(golden).size == 80 * 40


def test_a_file_is_cut_at_its_pauses_and_only_envelopes_are_sent(page: Any, served: Site, recording: Path) -> None:
    open_file(page, recording)
    finished(page)
    assert len(served.received) >= SPEAKERS
    assert {each.codec for each in served.received} == {"klt"}
    assert page.locator("#words li").count() == len(served.received)
    assert page.locator("#words li").first.inner_text().splitlines()[1] == "Utterance 1 was heard."
    assert "unsure (happy?), 42%" in page.locator("#words li").nth(1).inner_text()
    total = soundfile.info(recording).duration
    assert sum(each.seconds for each in served.received) < total - 1  # pauses stay here
    share = float(page.inner_text("#bytes-share").removesuffix(" %"))
    assert 0.3 < share < 1.5
    assert page.inner_text("#seconds") == f"{total:.1f} s"
    assert page.locator("#emotions g").count() == len(served.received)
    assert "unsure (happy?)" in page.get_attribute("#emotions", "aria-label")
    assert "words" in page.inner_text("#timings")
    assert "klt (here)" in page.inner_text("#timings")
    assert str(served.received[-1].utterance_id) in page.inner_text("#sent")
    assert page.inner_text("#hex").startswith("0000  41 4d 53 52 01 05 01 00")
    assert "not sent" in page.inner_text("#kept")


def test_the_microphone_is_heard_until_it_is_stopped(page: Any, served: Site) -> None:
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def script_s() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(each["value"] for each in metrics if each["name"] == "ScriptDuration"))

    page.get_by_role("button", name="Speak").click()
    stop = page.get_by_role("button", name="Stop")
    stop.wait_for(timeout=PATIENCE_MS)
    before = script_s()
    saying = page.locator("#words .saying")
    saying.get_by_text("So it was").wait_for(timeout=PATIENCE_MS)  # while it is said
    assert "unsure (happy?), 40%…" in saying.inner_text()
    assert saying.get_attribute("aria-hidden") == "true"  # it may change yet: the answer is read out
    page.get_by_text("Utterance 1 was heard.").wait_for(timeout=PATIENCE_MS)
    page.wait_for_timeout(6000)
    spent_ms = 1000 * (script_s() - before)
    stop.click()
    finished(page)
    heard_s = float(page.inner_text("#seconds").removesuffix(" s"))
    assert len(served.received) >= 2
    assert spent_ms / heard_s <= SCRIPT_MS
    assert page.get_by_role("button", name="Speak").is_visible()
    assert served.connections == 1
    assert saying.count() == 0
    assert page.locator("#words li").count() == len(served.received)
    for each in served.received:
        assert is_streamed(each)
        assert wire.decode_mel(each).shape == (80, each.frames)
    assert sum(each.seconds for each in served.received) < heard_s - 1  # pauses stay here
    assert 0.3 < float(page.inner_text("#bytes-share").removesuffix(" %")) < 2
    assert "while you spoke" in page.inner_text("#sent")


def speak(page: Any, utterances: int) -> None:
    page.get_by_role("button", name="Speak").click()
    page.get_by_text(f"Utterance {utterances} was heard.").wait_for(timeout=PATIENCE_MS)
    page.get_by_role("button", name="Stop").click()
    finished(page)


def is_streamed(envelope: wire.Envelope) -> bool:
    return bool(envelope.payload[0] & 0x80)


def test_after_a_cut_the_stream_goes_on_and_no_block_is_lost_or_doubled(page: Any, served: Site) -> None:
    served.cuts += [3, 7]
    speak(page, 2)
    assert served.connections == 3
    for each in served.received[:2]:
        assert is_streamed(each)
        assert wire.decode_mel(each).shape == (80, each.frames)  # raises where a block is missing, or there twice
    assert page.locator("#words li").count() == len(served.received)


def test_where_no_socket_is_to_be_had_utterances_go_whole(page: Any, served: Site) -> None:
    served.has_sockets = False
    speak(page, 1)
    assert served.connections == 0
    assert not any(map(is_streamed, served.received))


def test_a_key_goes_to_the_socket_as_a_protocol(page: Any, served: Site) -> None:
    page.locator("summary").click()
    page.get_by_label("Key").fill("amser_secret")
    speak(page, 1)
    assert served.keys == ["bearer.amser_secret"]


def test_what_the_browser_decodes_is_sent_too(page: Any, served: Site, tmp_path: Path, speech: list[Waveform]) -> None:
    path = tmp_path / "speech.flac"
    stereo = np.stack([speech[0], speech[0]], axis=1)
    soundfile.write(path, stereo, SAMPLE_RATE)
    open_file(page, path)
    finished(page)
    assert served.received


def test_what_is_no_recording_is_said_to_be_none(page: Any, served: Site, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no sound at all")
    open_file(page, path)
    page.get_by_text("cannot decode that recording").wait_for(timeout=PATIENCE_MS)
    assert served.received == []


def test_nothing_is_sent_where_nobody_speaks(page: Any, served: Site, tmp_path: Path) -> None:
    path = tmp_path / "silence.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 1e-4, 3 * SAMPLE_RATE), SAMPLE_RATE)
    open_file(page, path)
    page.get_by_text("nothing was sent").wait_for(timeout=PATIENCE_MS)
    assert served.keys == []


def test_the_key_goes_with_a_request_and_nowhere_else(page: Any, served: Site, recording: Path) -> None:
    served.refuse.append(401)
    open_file(page, recording)
    page.get_by_text("This cluster wants a key").wait_for(timeout=PATIENCE_MS)
    assert page.evaluate("document.activeElement.id") == "key"
    page.keyboard.type("amser_secret")
    served.keys.clear()
    open_file(page, recording)
    finished(page)
    assert set(served.keys) <= {"Bearer amser_secret", None}  # the first recording's other utterances had none
    assert served.keys[-1] == "Bearer amser_secret"
    stored = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.href]")
    assert stored == [0, 0, "", served.url]
    page.reload()
    assert page.input_value("#key") == ""


def test_why_a_cluster_refused_stays_to_be_read(
    page: Any, served: Site, tmp_path: Path, speech: list[Waveform]
) -> None:
    path = tmp_path / "one.wav"
    soundfile.write(path, speech[0], SAMPLE_RATE)
    served.refuse.append(401)
    open_file(page, path)
    page.locator("#words li").first.wait_for(timeout=PATIENCE_MS)
    page.wait_for_timeout(500)  # the worker's last message comes before or after the refusal
    assert "wants a key" in page.inner_text("#status")


def test_a_busy_cluster_is_asked_again(page: Any, served: Site, tmp_path: Path, speech: list[Waveform]) -> None:
    path = tmp_path / "one.wav"
    soundfile.write(path, speech[0], SAMPLE_RATE)
    served.refuse += [429, 503]
    open_file(page, path)
    finished(page)
    assert served.received


def test_a_narrow_screen_needs_no_sideways_scrolling(page: Any, recording: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    open_file(page, recording)
    finished(page)
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for button in page.locator("button, .button").all():
        assert button.bounding_box()["height"] >= 44


def test_the_page_is_light_or_dark_as_the_system_is(page: Any) -> None:
    seen = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        seen.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        for selector in ("#status", "h2:not(.hidden)", "a"):
            assert page.evaluate(CONTRAST, selector) >= 4.5, (scheme, selector)
    assert len(seen) == 2


def test_everything_can_be_reached_by_keyboard_and_has_a_name(page: Any) -> None:
    page.locator("summary").click()
    reached = []
    page.evaluate("document.activeElement.blur()")
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"microphone", "file", "SUMMARY", "key", "step", "language"} <= set(reached)
    for role, name in (("button", "Speak"), ("log", "Words"), ("status", None), ("img", "No emotion yet")):
        assert page.get_by_role(role, name=name).count() == 1, role
    assert page.get_by_label("Open a recording").count() == 1
    assert page.get_by_label("Key").count() == 1
    assert page.locator("html").get_attribute("lang") == "en"


CONTRAST = """(selector) => {
    const parts = (color) => color.match(/[\\d.]+/g).slice(0, 3).map(Number);
    const luminance = (color) => {
        const [r, g, b] = parts(color).map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const element = document.querySelector(selector);
    let behind = element;
    while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
    const one = luminance(getComputedStyle(element).color);
    const other = luminance(getComputedStyle(behind).backgroundColor);
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
}"""
