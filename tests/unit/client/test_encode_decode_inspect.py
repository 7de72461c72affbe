"""`encode`, `decode` and `inspect` on real speech: files, pipes, and what happens where something is no audio."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import DATA, rows

from amser.client.command_line import main
from amser.client.commands import inputs
from amser.features import SAMPLE_RATE, log_mel
from amser.wire import decode_mel, unpack

Pipe = Callable[[bytes], io.BytesIO]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Real speech, in a folder and a file whose names a shell would cut up."""
    path = tmp_path / "my calls" / "first call.flac"
    path.parent.mkdir()
    path.write_bytes((DATA / rows("speech/librispeech.tsv")[0]["path"]).read_bytes())
    return path


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Pipe:
    """Puts bytes on standard input; gives what comes to standard output."""

    def connect(content: bytes) -> io.BytesIO:
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, write_through=True))
        return written

    return connect


def samples_of(path: Path) -> int:
    return int(soundfile.info(path).frames)


def test_an_audio_file_becomes_the_envelope_beside_it(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", str(recording), "--language", "en", "--device-id", "phone-7"]) == 0
    output = recording.with_name("first call.amser")
    envelope = unpack(output.read_bytes())
    seconds = samples_of(recording) / SAMPLE_RATE
    assert (envelope.codec, envelope.profile, envelope.language, envelope.device_id) == (
        "klt",
        "whisper80",
        "en",
        "phone-7",
    )
    assert envelope.seconds == pytest.approx(seconds, abs=1e-3)
    size = output.stat().st_size
    kbit_s = 8e-3 * size / seconds
    assert capsys.readouterr().out == f"{recording} → {output}: {size:,} bytes, {seconds:.2f} s, {kbit_s:.2f} kbit/s\n"


@pytest.mark.parametrize(
    ("options", "codec", "setting"),
    [
        (["--codec", "svd-i8", "--rate", "0.25"], "svd-i8", ("rank", 20)),
        (["--rate", "0.125"], "svd-f16", ("rank", 10)),
        (["--step", "low"], "klt", ("step", 30)),
        (["--cells", "8x4"], "interpolation", ("cells", [8, 4])),
        (["--profile", "whisper128"], "svd-f16", ("bands", 128)),
        (["--profile", "paper", "--codec", "mel-f16"], "mel-f16", ("bands", 80)),
    ],
)
def test_the_options_of_the_codec_are_those_of_send(
    recording: Path, options: list[str], codec: str, setting: tuple[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    output = recording.with_name("out.amser")
    assert main(["encode", str(recording), "-o", str(output), *options]) == 0
    capsys.readouterr()
    assert main(["inspect", str(output), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["codec"], said[setting[0]]) == (codec, setting[1])


def test_what_is_decoded_is_what_the_cluster_gets(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["encode", str(recording), "--codec", "svd-f16", "--rate", "0.5"])
    envelope = recording.with_suffix(".amser")
    assert main(["decode", str(envelope)]) == 0
    mel = np.load(recording.with_suffix(".npy"))
    waveform, _ = soundfile.read(recording, dtype="float32")
    original = log_mel(waveform)
    assert mel.dtype == np.float32
    np.testing.assert_array_equal(mel, decode_mel(unpack(envelope.read_bytes())))
    assert np.abs(mel - original).mean() < 0.06
    assert f"80 bands × {original.shape[1]} frames" in capsys.readouterr().out


def test_pipes_carry_audio_in_and_envelopes_out(recording: Path, pipe: Pipe, tmp_path: Path) -> None:
    written = pipe(recording.read_bytes())
    assert main(["encode", "-"]) == 0  # the default of a pipe is a pipe
    envelope = written.getvalue()
    assert unpack(envelope).frames == samples_of(recording) // 160
    written = pipe(envelope)
    assert main(["decode", "-", "-o", str(tmp_path)]) == 0
    assert np.load(tmp_path / "stdin.npy").shape == (80, samples_of(recording) // 160)
    written = pipe(envelope)
    assert main(["inspect", "-", "--json"]) == 0
    assert json.loads(written.getvalue())["envelope_bytes"] == len(envelope)


@pytest.mark.parametrize("name", ["mediarecorder.webm", "adts.aac", "said-twice.ogg", "id3-tag.flac"])
def test_every_format_comes_through_a_pipe(name: str, pipe: Pipe) -> None:
    written = pipe((DATA / "cases" / name).read_bytes())
    assert main(["encode", "-", "-o", "-"]) == 0
    assert unpack(written.getvalue()).seconds > 1


def test_a_pipe_that_does_not_end_is_not_read_for_ever(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inputs, "LARGEST_AUDIO", 1000)
    pipe(bytes(1001))
    assert main(["encode", "-", "-o", "-"]) == 1
    assert capsys.readouterr().err == "amser: -: there are more than 1,000 bytes; accepted: up to 1,000 bytes\n"


def test_one_file_that_is_no_audio_does_not_keep_the_others_back(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes, gone = recording.with_name("notes.wav"), recording.with_name("gone.wav")
    notes.write_text("not audio")
    assert main(["encode", str(notes), str(gone), str(recording)]) == 1
    assert unpack(recording.with_suffix(".amser").read_bytes()).codec == "klt"
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"amser: {notes}: the file is no audio that can be read; accepted: WAV")
    assert told[1:] == [f"amser: {gone}: No such file or directory"]
    assert not notes.with_suffix(".amser").exists()


def test_one_envelope_that_is_none_does_not_keep_the_others_back(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = recording.with_name("whole.amser")
    main(["encode", str(recording), "-o", str(whole)])
    cut, changed = recording.with_name("cut"), recording.with_name("changed")
    cut.write_bytes(whole.read_bytes()[:100])
    changed.write_bytes(whole.read_bytes()[:-9] + b"\0" + whole.read_bytes()[-8:])
    for command in ("inspect", "decode"):
        capsys.readouterr()
        assert main([command, str(cut), str(changed), str(recording), str(whole)]) == 1
        printed = capsys.readouterr()
        assert "whisper80" in printed.out or "80 bands" in printed.out
        first, second, third = printed.err.splitlines()
        assert first == f"amser: {cut}: the envelope has 100 bytes; accepted: the {whole.stat().st_size} that its " + (
            "header announces"
        )
        assert second.startswith(f"amser: {changed}: the bytes are corrupt: their CRC-32C is ")
        assert third.startswith(f"amser: {recording}: the body begins with b'fLaC'")


def test_a_recording_of_more_than_30_s_is_refused_with_the_command_that_splits_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).standard_normal(31 * SAMPLE_RATE) / 10, SAMPLE_RATE)
    assert main(["encode", str(tmp_path / "long.wav")]) == 1
    told = capsys.readouterr().err
    assert "long.wav: the recording is longer than 30 s; accepted: up to 30 s" in told
    assert "python -m amser send" in told


def test_inspect_shows_who_sent_what_and_what_it_takes(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["encode", str(recording), "--device-id", "[red]phone[/red]"])
    size = recording.with_suffix(".amser").stat().st_size
    capsys.readouterr()
    assert main(["inspect", str(recording.with_suffix(".amser"))]) == 0
    shown = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    shown = {name: value.strip() for name, value in shown.items()}
    assert shown["codec"] == "klt, step 23 (standard)"
    assert shown["language"] == "not given"
    assert shown["device"] == "[red]phone[/red]"
    share = 100 * size / (2 * samples_of(recording))
    assert shown["envelope"] == f"{size:,} bytes, {share:.2f} % of 16-bit PCM"


def test_inspect_fits_80_columns(
    recording: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    main(["encode", str(recording), "--device-id", "x" * 64])
    capsys.readouterr()
    main(["inspect", str(recording.with_suffix(".amser"))])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["encode", "a.wav", "-o", "a.wav"], "would be written over an input"),
        (["encode", "a.wav", "b.wav", "-o", "one.amser"], "would both become one.amser"),
        (["encode", "a.wav", "a.flac"], "a.wav and a.flac would both become a.amser"),
        (["encode", "a.wav", "b.wav", "-o", "-"], "would both become -"),
        (["inspect", "-", "-"], "can be read once only"),
        (["encode", "a.wav", "--language", "english"], "the language is 'english'"),
        (["encode", "a.wav", "--device-id", "x" * 65], "1 to 64 bytes of printable UTF-8"),
        (["encode", "a.wav", "--codec", "klt", "--profile", "whisper128"], "klt was given 128 bands"),
        (["encode", "a.wav", "--rate", "many"], "many is not above 0 and up to 1"),
        (["encode"], "the following arguments are required: FILE"),
    ],
)
def test_wrong_usage_is_one_line_and_names_the_help(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.wav").write_bytes(b"RIFF")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("amser: ")
    assert said in first
    assert second == f"See: python -m amser {arguments[0]} --help"
    assert Path("a.wav").read_bytes() == b"RIFF"


def test_what_is_damaged_or_cut_is_encoded_and_said(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = recording.read_bytes()
    damaged, cut = tmp_path / "damaged.flac", tmp_path / "cut.flac"
    damaged.write_bytes(content[: len(content) // 2] + bytes(300) + content[len(content) // 2 + 300 :])
    cut.write_bytes(content[: len(content) // 2])
    assert main(["encode", str(damaged), str(cut), "-o", str(tmp_path)]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"amser: {damaged}: damaged; what could be read of it is used",
        f"amser: {cut}: cut off; what there is of it is used",
    ]
    assert {file.name for file in tmp_path.glob("*.amser")} == {"damaged.amser", "cut.amser"}
