"""The playground in headless Chromium before the real models: what is said into the microphone stands on the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from access import add_key
from browser import chromium
from recordings import speakers, waveform_of
from served import serving

from amser.features import SAMPLE_RATE
from deployments.access.settings import AuthSettings
from deployments.settings import FlowSettings, IdempotencySettings, Settings

PATIENCE_MS = 240_000  # of a busy machine
SAID = ("window", "preparations")  # by the speaker


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("microphone") / "speech.wav"
    row = next(row for row in speakers(8) if SAID[0].upper() in row["text"])
    soundfile.write(path, np.concatenate([waveform_of(row["path"]), np.zeros(2 * SAMPLE_RATE)]), SAMPLE_RATE)
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    return path, add_key(path, "recognize")


@pytest.fixture(scope="module")
def browser(microphone: Path) -> Iterator[Any]:
    with chromium(microphone) as opened:
        yield opened


@pytest.fixture(scope="module")
def url(browser: Any, keys: tuple[Path, str]) -> Iterator[str]:
    del browser  # asked for first: without one no models are loaded
    settings = Settings(
        profile="fused",
        auth=AuthSettings(mode="keys", file=keys[0]),
        idempotency=IdempotencySettings(store="none"),
        flow=FlowSettings(admission=False),
    )
    with serving(settings) as (running, _):
        yield running.replace("127.0.0.1", "localhost")


def test_what_the_microphone_hears_stands_on_the_page(browser: Any, url: str, keys: tuple[Path, str]) -> None:
    page = browser.new_context(permissions=["microphone"]).new_page()
    page.goto(url)
    page.locator("summary").click()
    page.get_by_label("Key").fill(keys[1])
    page.get_by_role("button", name="Speak").click()
    page.wait_for_timeout(7000)
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Done.", exact=True).wait_for(timeout=PATIENCE_MS)
    words = page.inner_text("#words").lower()
    assert all(word in words for word in SAID), words
    assert page.locator("#emotions g").count() >= 1
    assert "words" in page.inner_text("#timings")
    assert float(page.inner_text("#bytes-share").removesuffix(" %")) < 1.5


def test_the_page_is_public_and_the_cluster_is_not(browser: Any, url: str, microphone: Path) -> None:
    page = browser.new_page()
    assert page.goto(url).status == 200
    page.set_input_files("#file", microphone)
    page.get_by_text("This cluster wants a key").wait_for(timeout=PATIENCE_MS)
