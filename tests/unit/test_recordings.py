"""The recordings that the tests run on: manifests and files agree, all is attributed, and it stays small."""

from __future__ import annotations

from collections import Counter

import pytest
from recordings import DATA, rows, speakers, waveform_of

from amser.features import SAMPLE_RATE

MANIFESTS = ("speech/librispeech.tsv", "noise/esc10.tsv", "emotion/emogator.tsv", "cases.tsv")
NO_RECORDINGS = ("README.md", "messages/version-1.pickle", "openapi.json")
MEGABYTES = 6
MEGABYTE = 1_000_000  # bytes


def test_every_file_is_listed_once_and_every_listed_file_is_there() -> None:
    listed = Counter(row["path"] for manifest in MANIFESTS for row in rows(manifest))
    files = {str(path.relative_to(DATA)) for path in DATA.rglob("*") if path.is_file() and path.parent.name != "fuzz"}
    assert files - {*MANIFESTS, *NO_RECORDINGS} == listed.keys()
    assert set(listed.values()) == {1}


def test_all_of_it_is_small() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) <= MEGABYTES * MEGABYTE


def test_the_readme_names_every_manifest_and_its_licence() -> None:
    text = (DATA / "README.md").read_text(encoding="utf-8")
    for needed in (*MANIFESTS, "CC BY 4.0", "CC BY 3.0", "Apache-2.0", "Panayotov", "Piczak", "Buhl"):
        assert needed in text


def test_no_noise_is_under_a_licence_that_forbids_a_use() -> None:
    noises = rows("noise/esc10.tsv")
    assert {row["licence"] for row in noises} == {"CC0", "CC BY"}
    assert all(row["author"] for row in noises)
    assert set(Counter(row["label"] for row in noises).values()) == {2}


@pytest.mark.parametrize("manifest", ["speech/librispeech.tsv", "emotion/emogator.tsv"])
def test_a_recording_is_as_long_as_its_manifest_says(manifest: str) -> None:
    for row in rows(manifest):
        assert waveform_of(row["path"]).size / SAMPLE_RATE == pytest.approx(float(row["seconds"]), abs=0.02)


def test_speakers_are_different_people_who_speak_for_three_to_eight_seconds() -> None:
    chosen = speakers(21)
    assert len({row["speaker"] for row in chosen}) == 21
    assert all(3 < float(row["seconds"]) < 8 for row in chosen)
    assert len({row["speaker"] for row in rows("speech/librispeech.tsv")}) == 24
