"""The command lines of the benchmarks: what is missing or unusable is said in one line, before any work is done."""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import recordings
import soundfile

from benchmarks import autoscaling
from benchmarks.measuring import command
from benchmarks.measuring.command import CannotBegin, NothingMeasured
from benchmarks.measuring.manifest import ManifestError, add_options, read_manifest, recordings_of
from benchmarks.measuring.report import write_rows
from benchmarks.measuring.transmission import Kept
from load_tests.report.environment import command_line

ROOT = Path(__file__).resolve().parents[3]
SPEECH = recordings.DATA / "speech" / "librispeech.tsv"
OF_SPEECH = ("asr", "codec", "edge", "service_times", "serving", "transport")
OTHERS = ("autoscaling", "composition", "emotion", "flow", "fusion_cost", "generator", "prediction", "resends")


def run(name: str, *arguments: str) -> int:
    """The exit code of a benchmark's `main` in this process."""
    try:
        importlib.import_module(f"benchmarks.{name}").main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def written(folder: Path, *lines: str) -> Path:
    """A manifest of these lines, beside a recording `a.wav` of half a second."""
    soundfile.write(folder / "a.wav", np.full(8000, 0.1), 16_000)
    file = folder / "own.tsv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("name", OF_SPEECH)
def test_without_a_manifest_a_line_says_what_to_give(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AMSER_DATA", raising=False)
    assert run(name, "--json", str(tmp_path / "rows.json")) == 2
    said = capsys.readouterr().err
    advice = "set AMSER_DATA to a folder that holds speech/librispeech.tsv, or give --manifest TSV, "
    assert said.startswith(f"benchmarks.{name}: no manifest: {advice}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", OF_SPEECH)
def test_a_manifest_that_is_not_there_is_named_in_a_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMSER_DATA", str(tmp_path))
    assert run(name, "--json", str(tmp_path / "rows.json")) == 2
    file = tmp_path / "speech" / "librispeech.tsv"
    said = f"benchmarks.{name}: no manifest {file}: it is not there; set AMSER_DATA or give --manifest TSV\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("name", OF_SPEECH)
def test_a_recording_that_cannot_be_read_is_named(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b.wav").write_text("no audio")
    manifest = written(tmp_path, "path\ttext", "b.wav\tgood day")
    assert run(name, "--manifest", str(manifest), "--json", str(tmp_path / "rows.json")) == 2
    assert f"benchmarks.{name}: {tmp_path / 'b.wav'} cannot be read: the file is no audio" in capsys.readouterr().err
    assert not (tmp_path / "rows.json").exists()


@pytest.mark.parametrize("name", [*OF_SPEECH, *OTHERS])
def test_rows_that_could_not_be_written_are_refused_before_the_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run(name, "--json", str(tmp_path / "file" / "rows.json")) == 2
    where = tmp_path / "file" / "rows.json"
    assert capsys.readouterr().err == f"benchmarks.{name}: --json {where} cannot be written: Not a directory\n"


@pytest.mark.parametrize("name", [*OF_SPEECH, *OTHERS])
def test_help_says_where_rows_go_and_which_columns_a_manifest_needs(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(name, "--help") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"(default: runs/{name}.json)" in said
    needs_text = name in ("asr", "codec", "serving")
    expected = "with the columns path and text" if needs_text else "with the column path"
    assert (expected in said) is (name in OF_SPEECH)
    assert ("AMSER_DATA" in said) is (name in (*OF_SPEECH, "emotion", "fusion_cost"))


@pytest.mark.parametrize(
    "name", ["asr", "codec", "composition", "flow", "generator", "prediction", "service_times", "serving"]
)
def test_missing_weights_are_said_before_the_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path / "empty"))
    arguments = ["--manifest", str(SPEECH)] if name in OF_SPEECH else []
    assert run(name, *arguments, "--json", str(tmp_path / "rows.json")) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"benchmarks.{name}: ")
    assert "python -m models.weights fetch" in said


def test_ctrl_c_ends_a_benchmark_without_a_traceback(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.autoscaling", "--json", str(tmp_path / "rows.json")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(600):
        if (tmp_path / "rows.json").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert errors == "benchmarks.autoscaling: interrupted\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CannotBegin("x"), 2),
        (ManifestError("x"), 2),
        (NothingMeasured("x"), 1),
        (OSError("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes_tell_what_cannot_begin_from_what_failed(error: BaseException, code: int) -> None:
    @command.benchmark("made")
    def main(_: object = None) -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code


def test_an_error_of_the_benchmark_itself_keeps_its_traceback() -> None:
    @command.benchmark("made")
    def main(_: object = None) -> None:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError, match="a bug"):
        main()


@pytest.mark.parametrize(
    ("lines", "needs", "said"),
    [
        (
            ["path,text", "a.wav,good day"],
            ("path", "text"),
            "needs the columns path and text; it has path,text; columns are",
        ),
        (["path", "a.wav"], ("path", "text"), "needs the column text; it has path"),
        (["path\ttext"], ("path",), "has no line below its header"),
        (["path\ttext", "a.wav\t"], ("path", "text"), "its column text is empty"),
        (["path\ttext", "\tgood day"], ("path",), "line 2: has no path"),
        (["path\tseconds", "a.wav\tlong"], ("path",), "line 2: 'long' is no number of seconds above 0"),
        (["path", "a.wav", "b.wav", "c.wav"], ("path",), "2 of its 3 recordings are missing below "),
        (
            ["path", "b.wav"],
            ("path",),
            "none of its 1 recordings, such as b.wav, is below a folder above it; give --root",
        ),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said_in_a_line(
    lines: list[str], needs: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match=r".*") as refused:
        read_manifest(written(tmp_path, *lines), needs)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"path\n\xff\xfe", b""])
def test_a_file_that_is_no_table_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "own.tsv"
    file.write_bytes(content)
    with pytest.raises(ManifestError, match=r"own\.tsv"):
        read_manifest(file)


def test_a_manifest_is_read_with_what_it_says_and_without_what_it_does_not(tmp_path: Path) -> None:
    manifest = written(
        tmp_path, "\ufeffpath\tspeaker\tseconds\ttext", 'a.wav\tann\t0.5\tsay "good day"', f"{tmp_path}/a.wav\t\t\t"
    )
    first, second = read_manifest(manifest)
    assert (first.path, first.name) == (tmp_path / "a.wav", "a.wav")
    assert (first.text, first.speaker, first.seconds, first.language) == ('say "good day"', "ann", 0.5, None)
    assert (second.path, second.text, second.speaker, second.seconds) == (tmp_path / "a.wav", "", None, None)
    assert first.waveform().size == 8000


def test_the_manifest_of_the_data_folder_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMSER_DATA", str(recordings.DATA))
    parser = argparse.ArgumentParser()
    add_options(parser, ("path", "text"))
    options = parser.parse_args([])
    with SPEECH.open(encoding="utf-8") as lines:
        expected = [row["path"] for row in csv.DictReader(lines, delimiter="\t")]
    assert [each.name for each in recordings_of(options)] == expected
    assert options.manifest == SPEECH


def test_every_row_holds_command_date_hardware_and_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [sys.argv[0], "--limit", "2"])
    write_rows(tmp_path / "rows.json", [{"figure": 1, "measured": "before"}], corpus="own")
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row["figure"] == 1
    assert row["corpus"] == "own"
    assert row["measured"] == "before"  # a row that was measured earlier says so
    assert row["hardware"].keys() == {"processor", "cores"}
    assert {"python", "amser", "numpy", "torch"} <= row["versions"].keys()
    assert row["command"].endswith(" --limit 2")


def test_a_command_line_can_be_typed_again_and_names_no_folder_of_this_machine() -> None:
    arguments = ["--limit", "2", "--manifest", str(Path.cwd() / "own data.tsv"), "--json", "/somewhere/else/rows.json"]
    assert command_line(arguments).endswith("--limit 2 --manifest 'own data.tsv' --json rows.json")


SMALL = {  # on the recordings of the tests, where no cluster is needed
    "asr": ["--limit", "2", "--engine", "ctranslate2", "--context", "short"],
    "codec": ["--limit", "2", "--transports", "pcm", "--settings", "klt:low"],
    "edge": ["--limit", "2", "--repeats", "1", "--transport", "klt:low", "pcm:16-bit"],
    "transport": ["--limit", "2", "--transport", "pcm:16-bit", "klt:low"],
    "autoscaling": ["--seeds", "1"],
}


@pytest.mark.parametrize("name", SMALL)
def test_a_small_run_on_the_recordings_of_the_tests_writes_rows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("benchmarks.codec.Kept", lambda: Kept(tmp_path / "kept.sqlite"))
    monkeypatch.setattr("benchmarks.autoscaling.REPORTED", dict([*autoscaling.REPORTED.items()][:1]))
    arguments = SMALL[name] + (["--manifest", str(SPEECH)] if name in OF_SPEECH else [])
    assert run(name, *arguments, "--json", str(tmp_path / "rows.json")) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows
    assert all({"command", "measured", "hardware", "versions"} <= row.keys() for row in rows)
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80
