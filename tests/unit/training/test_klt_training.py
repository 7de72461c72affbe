"""How the tables of `klt` are learnt: what sensitivity is, what a fit returns, and what the command refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from recordings import noise
from scipy import fft

from amser.codecs import Setting, klt
from amser.codecs.klt_tables import BANDS, BLOCKS, FREQUENCY_BITS, Tables
from training.klt import __main__ as command
from training.klt.fitting import Arrays, _root, _weights, fit
from training.klt.sensitivity import Sensitivity, summarize

Matrix = NDArray[np.float32]

PLAIN = Sensitivity(np.eye(BANDS), np.ones(max(BLOCKS)))  # every cell matters the same
HEADER = "path\tspeaker\ttext\n"


def synthetic(seed: int, utterances: int = 6, frames: int = 640) -> list[Matrix]:
    """Log-Mels of a few spectra of this seed's own, each of which comes and goes over time."""
    rng = np.random.default_rng(seed)
    spectra = np.cumsum(rng.standard_normal((BANDS, 6)), axis=0) / 60
    mels = []
    for _ in range(utterances):
        loudness = np.sin(np.cumsum(rng.standard_normal((6, frames)), axis=1) / 1.2)
        mels.append((spectra @ loudness + 0.03 * rng.standard_normal((BANDS, frames))).astype(np.float32))
    return mels


@pytest.fixture(scope="module")
def fitted() -> dict[int, Arrays]:
    """Tables of two kinds of speech."""
    return {seed: fit(synthetic(seed), PLAIN) for seed in (1, 2)}


# --- Sensitivity ------------------------------------------------------------------------------------------------------


def test_the_sensitivity_of_bands_is_the_mean_product_of_their_gradients() -> None:
    gradients = [np.zeros((BANDS, 64), np.float32), np.zeros((BANDS, 16), np.float32)]
    gradients[0][3], gradients[0][5], gradients[1][3] = 2, -1, 4
    measured = summarize(gradients, 32)
    assert measured.bands.shape == (BANDS, BANDS)
    assert measured.bands[3, 3] == pytest.approx((64 * 4 + 16 * 16) / 80)
    assert measured.bands[3, 5] == measured.bands[5, 3] == pytest.approx(-64 * 2 / 80)
    assert np.count_nonzero(measured.bands) == 4


def test_the_sensitivity_along_time_is_the_energy_of_each_cosine() -> None:
    cosine = fft.idct(np.eye(32)[7], norm="ortho")
    gradient = np.zeros((BANDS, 70), np.float32)
    gradient[10, :32] = gradient[60, 32:64] = cosine  # the last 6 frames fill no block
    measured = summarize([gradient], 32)
    np.testing.assert_allclose(measured.modulation, 32 * np.eye(32)[7], atol=1e-5)


def test_noise_depends_on_every_cosine_alike() -> None:
    gradients = [np.random.default_rng(seed).standard_normal((BANDS, 320)).astype(np.float32) for seed in range(4)]
    measured = summarize(gradients, 32)
    assert measured.modulation.mean() == pytest.approx(1)
    np.testing.assert_allclose(measured.modulation, 1, atol=0.2)


# --- Fitting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.125, 0.5, 1.0])
def test_a_root_of_the_metric_is_symmetric_and_has_a_determinant_of_1(power: float) -> None:
    wide = np.random.default_rng(0).standard_normal((BANDS, 300))
    root = _root(wide @ wide.T, power)
    np.testing.assert_allclose(root, root.T, atol=1e-9)
    sign, log_determinant = np.linalg.slogdet(root)
    assert (sign, log_determinant) == (1, pytest.approx(0, abs=1e-9))
    np.testing.assert_allclose(_root(7 * wide @ wide.T, power), root, atol=1e-9)


def test_a_root_that_is_squared_is_the_metric_up_to_its_scale() -> None:
    wide = np.random.default_rng(0).standard_normal((BANDS, 300))
    metric, root = wide @ wide.T, _root(wide @ wide.T, 0.5)
    np.testing.assert_allclose(root @ root * (np.trace(metric) / np.trace(root @ root)), metric, rtol=1e-6, atol=1e-6)


def test_a_band_that_nothing_depends_on_is_not_lost() -> None:
    root = _root(np.diag([0.0] + [1.0] * (BANDS - 1)), 0.5)
    assert 0 < root[0, 0] < root[1, 1]
    assert np.isfinite(np.linalg.inv(root)).all()


def test_cosines_that_matter_more_are_divided_by_less() -> None:
    falling = np.geomspace(4, 0.25, 32)
    for length in BLOCKS:
        weights = _weights(falling, length)
        assert weights.shape == (length,)
        assert (np.diff(weights) > 0).all()
        assert np.log(weights).mean() == pytest.approx(0, abs=1e-12)


def test_a_fit_returns_arrays_that_belong_together(fitted: dict[int, Arrays]) -> None:
    arrays = fitted[1]
    assert arrays["mean"].shape == (BANDS,)
    np.testing.assert_allclose(arrays["synthesis"] @ arrays["analysis"], np.eye(BANDS), atol=1e-4)
    for length in BLOCKS:
        assert (arrays[f"scales_{length}"].shape, arrays[f"weights_{length}"].shape) == ((BANDS, length), (length,))
        np.testing.assert_allclose(arrays[f"weights_{length}"], 1, rtol=1e-6)  # as the sensitivity is plain
    sizes = 2 * arrays["classes"][:, 1] + 1
    assert len(arrays["thresholds"]) == len(arrays["roundings"]) == len(sizes)
    assert arrays["frequencies"].size == arrays["values"].size == sizes.sum()
    for frequencies in np.split(arrays["frequencies"], np.cumsum(sizes)[:-1]):
        assert frequencies.sum() == 2**FREQUENCY_BITS
        assert frequencies.min() >= 1
        np.testing.assert_array_equal(frequencies, frequencies[::-1])
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_with_a_plain_sensitivity_the_basis_is_that_of_karhunen_and_loeve(fitted: dict[int, Arrays]) -> None:
    analysis = fitted[1]["analysis"].astype(np.float64)
    np.testing.assert_allclose(analysis @ analysis.T, np.eye(BANDS), atol=1e-5)
    frames = np.concatenate([each - each.max() for each in synthetic(1)], axis=1)
    variances = (analysis @ np.cov(frames) @ analysis.T).diagonal()
    assert (np.diff(variances) <= 1e-3 * variances[0]).all()
    assert variances[:6].sum() > 0.9 * variances.sum()  # six spectra


def test_a_fit_is_the_same_every_time(fitted: dict[int, Arrays]) -> None:
    again = fit(synthetic(1), PLAIN)
    assert again.keys() == fitted[1].keys()
    for name, array in again.items():
        np.testing.assert_array_equal(array, fitted[1][name])


@pytest.mark.parametrize("step", [8, 16])
def test_tables_write_what_they_were_learnt_from_in_fewer_bytes_and_with_less_error(
    fitted: dict[int, Arrays], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    def sizes_and_errors(learnt_from: int, spoken: int) -> tuple[int, float]:
        tables = Tables(dict(fitted[learnt_from]), {})
        monkeypatch.setattr(klt, "tables", lambda: tables)
        monkeypatch.setattr(klt, "plan", tables.plan)
        codec, size, error = klt.Klt(), 0, 0.0
        for mel in synthetic(spoken):
            payload = codec.encode(mel, Setting(step=step))
            size += len(payload)
            error += float(np.square(codec.decode(payload, BANDS, mel.shape[1]) - mel).sum())
        return size, error

    for own, other in ((1, 2), (2, 1)):
        (size, error), (size_by_other, error_by_other) = sizes_and_errors(own, own), sizes_and_errors(other, own)
        assert size < 0.95 * size_by_other
        assert error < error_by_other


# --- The command ------------------------------------------------------------------------------------------------------


def test_the_command_explains_itself() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "training.klt", "--help"], capture_output=True, text=True, timeout=300, check=False
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("usage: python -m training.klt")
    assert all(option in shown.stdout for option in ("--manifest", "--output", "--weights", "--draws", "--licence"))


def test_a_command_without_a_manifest_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main([])
    assert ended.value.code == 2
    assert "--manifest" in capsys.readouterr().err


def test_a_manifest_that_is_missing_exits_with_2_and_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "missing.tsv"
    command_line = [sys.executable, "-m", "training.klt", "--manifest", str(missing)]
    ended = subprocess.run(command_line, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"training.klt: {missing} cannot be read: No such file or directory\n"


def test_a_manifest_that_is_no_text_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "speech.flac"
    manifest.write_bytes(b"fLaC\xff\xfe")
    assert command.main(["--manifest", str(manifest)]) == 2
    assert capsys.readouterr().err == f"training.klt: {manifest} cannot be read: no UTF-8\n"


@pytest.mark.parametrize("content", ["", HEADER, "path\tspeaker\na.flac\t1\n", "path,speaker,text\na.flac,1,hello\n"])
def test_a_manifest_without_what_is_needed_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    manifest = tmp_path / "speech.tsv"
    manifest.write_text(content)
    assert command.main(["--manifest", str(manifest)]) == 2
    assert f"{manifest} needs columns path, speaker and text" in capsys.readouterr().err


def test_recordings_that_are_not_there_exit_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "speech.tsv"
    manifest.write_text(HEADER + "gone.flac\t1\thello\n")
    assert command.main(["--manifest", str(manifest)]) == 2
    assert f"gone.flac is not beside or above {manifest}" in capsys.readouterr().err


def test_the_command_learns_from_every_third_speaker_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learnt: list[tuple[str, int]] = []

    def measure(spoken: list[tuple[Matrix, str]], weights: str, length: int, draws: int, seed: int) -> Sensitivity:
        learnt.extend((text, mel.shape[1]) for mel, text in spoken)
        assert (weights, length, draws, seed) == ("whisper-base", 32, 2, 0)
        return PLAIN

    monkeypatch.setattr(command, "measure", measure)
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    (tmp_path / "lists").mkdir()
    rows = [f"{speaker}.wav\t{speaker}\tGOOD MORNING {speaker}\n" for speaker in "ABCD"]
    for speaker in "ABCD":
        soundfile.write(tmp_path / f"{speaker}.wav", noise(1.0), 16_000)
    (tmp_path / "broken.wav").write_text("no sound")
    rows.append("broken.wav\tA\tHELLO\n")
    (tmp_path / "lists" / "speech.tsv").write_text(HEADER + "".join(rows))
    output = tmp_path / "learnt.npz"
    assert command.main(["--manifest", str(tmp_path / "lists" / "speech.tsv"), "--output", str(output)]) == 0
    assert learnt == [("Good morning a", 100), ("Good morning d", 100)]
    assert "training.klt: 1 of 3 recordings left out: 1 unreadable (broken.wav)" in capsys.readouterr().err
    with np.load(output) as content:
        arrays = dict(content)
    about = json.loads(bytes(arrays.pop("about")))
    assert (about["readers"], about["frames"], about["words_by"]) == (["A", "D"], 200, "whisper-base")
    assert (about["corpus"], about["licence"]) == ("speech", "unknown: speech")
    assert Tables(arrays, about).plan(32, 20).order.size > 0
    assert [path.name for path in tmp_path.glob("*.npz")] == ["learnt.npz"]
