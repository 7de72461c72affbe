"""API keys: what is kept of them, how a file of them is followed, the command that makes them, and who may start."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from access import add_key, bearer, remove_key
from starlette.responses import PlainTextResponse

from deployments.access import __main__ as command
from deployments.access import start
from deployments.access.key_file import KeyFileBroken, WatchedKeys, read
from deployments.access.keys import KeyRing, recognised
from deployments.access.proxy import KeysFirst
from deployments.access.settings import AuthSettings, LimitSettings
from deployments.app import build
from deployments.local_cluster import LocalCluster
from deployments.settings import Settings

TOKEN = re.compile(r"amser_[a-z0-9]{8}_[A-Za-z0-9_-]{43}")


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


# --- Keys -------------------------------------------------------------------------------------------------------------


def test_a_token_is_recognised_and_its_secret_is_not_kept(file: Path) -> None:
    token = add_key(file)
    assert TOKEN.fullmatch(token)
    ring = read(file)
    found = recognised(token, ring)
    assert found is not None
    assert found.id == token.split("_")[1]
    assert token.split("_", 2)[2] not in file.read_text()


def test_nothing_but_the_whole_token_is_recognised(file: Path) -> None:
    token, other = add_key(file), add_key(file)
    ring = read(file)
    last = "A" if token[-1] != "A" else "B"
    borrowed = other[: len("amser_") + 9] + token[len("amser_") + 9 :]  # the id of one, the secret of another
    for wrong in ("", "amser", token[:-1], token[:-1] + last, f"{token} ", f"{token}A", token.upper(), borrowed):
        assert recognised(wrong, ring) is None, wrong


def test_a_hash_under_another_id_is_of_no_use(file: Path) -> None:
    token, other = add_key(file), add_key(file)
    content = json.loads(file.read_text())
    first, second = content["keys"]
    second["hash"] = first["hash"]
    ring = KeyRing.model_validate_json(json.dumps(content))
    assert recognised(token, ring)
    assert recognised(other[: len("amser_") + 9] + token[len("amser_") + 9 :], ring) is None


# --- The file ---------------------------------------------------------------------------------------------------------


def test_a_change_is_followed_within_a_second_and_the_file_looked_at_once_a_second(file: Path) -> None:
    first = add_key(file)
    clock = Clock()
    watched = WatchedKeys(file, clock)
    second = add_key(file)
    clock.now_s = 0.9
    assert recognised(second, watched.ring()) is None
    clock.now_s = 1.0
    assert recognised(second, watched.ring())
    assert recognised(first, watched.ring())  # both are valid at once
    remove_key(file, first)
    clock.now_s = 2.0
    assert recognised(first, watched.ring()) is None


@pytest.mark.parametrize(
    "content", ["", "{", '{"keys": [{"id": "x"}]}', '{"keyz": []}', '{"version": 2, "keys": []}', "\0\0", None]
)
def test_a_file_that_breaks_keeps_the_keys_before_and_is_told_of_once(
    file: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    token = add_key(file)
    good = file.read_text()
    clock = Clock()
    watched = WatchedKeys(file, clock)
    file.unlink() if content is None else file.write_text(content)
    with caplog.at_level(logging.WARNING, "ray.serve"):
        for clock.now_s in (1, 2, 3):
            assert recognised(token, watched.ring())
    (told,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert str(file) in told.getMessage()
    assert "the keys that were read before still count" in told.getMessage()
    file.write_text(good.replace('"owner"', '"owner" '))
    clock.now_s = 4
    assert recognised(token, watched.ring())
    assert "the file of keys has changed: 1 keys" in caplog.text


def test_what_stands_in_a_broken_file_is_not_repeated(file: Path) -> None:
    file.write_text('{"keys": [{"id": "amser_secret", "hash": "amser_secret", "amser_secret": 1}]}')
    with pytest.raises(KeyFileBroken) as broken:
        read(file)
    assert "keys.0.id: string_pattern_mismatch" in str(broken.value)
    assert "is no file of keys" in str(broken.value)


def test_a_file_that_everybody_may_write_is_not_used(file: Path) -> None:
    add_key(file)
    file.chmod(0o666)
    with pytest.raises(KeyFileBroken, match="everybody may write"):
        read(file)


def test_it_is_written_for_its_user_alone_and_without_a_moment_in_between(file: Path) -> None:
    add_key(file)
    inode = file.stat().st_ino
    with file.open() as before:
        add_key(file)
        assert len(json.load(before)["keys"]) == 1  # who reads while it is written reads the old one
    assert file.stat().st_ino != inode
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(file.parent) == [file.name]


def test_two_who_change_it_at_once_lose_nothing(file: Path) -> None:
    threads = [threading.Thread(target=add_key, args=(file,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read(file).keys) == 8


# --- The command ------------------------------------------------------------------------------------------------------


def test_a_key_is_made_shown_once_listed_and_revoked(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--file", str(file)]
    limits = ["--limit", "requests_per_minute=600", "--limit", "device.concurrency=2"]
    assert command.main(["create", "kitchen [app]", "--scope", "recognize", "--expires", "90", *limits, *where]) == 0
    said = capsys.readouterr()
    token = said.out.strip()
    assert TOKEN.fullmatch(token)
    assert "It is shown only now" in said.err
    (key,) = read(file).keys
    assert (key.owner, key.scopes) == ("kitchen [app]", {"recognize"})
    assert key.expires is not None
    assert timedelta(days=89) < key.expires - datetime.now(UTC) < timedelta(days=91)
    effective = key.limits_within(LimitSettings.model_validate({"key": {"concurrency": 7}}))
    assert (effective.key.requests_per_minute, effective.key.concurrency, effective.device.concurrency) == (600, 7, 2)
    assert command.main(["list", *where]) == 0
    listed = capsys.readouterr().out
    assert key.id in listed
    assert "kitchen [app]" in listed
    assert key.hash not in listed
    assert command.main(["list", "--json", *where]) == 0
    assert json.loads(capsys.readouterr().out)[0]["limits"]["key"] == {"requests_per_minute": 600}
    assert command.main(["revoke", key.id, *where]) == 0
    assert read(file).keys == ()
    assert command.main(["revoke", key.id, *where]) == 1
    assert f"has no key {key.id}" in capsys.readouterr().err


def test_quiet_prints_the_key_alone(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["create", "fleet", "--expires", "never", "--quiet", "--file", str(file)]) == 0
    said = capsys.readouterr()
    assert (TOKEN.fullmatch(said.out.strip()) is not None, said.err) == (True, "")
    assert read(file).keys[0].expires is None


@pytest.mark.parametrize(
    "wrong",
    [
        ["--limit", "speed=1"],
        ["--limit", "concurrency=1.5"],
        ["--limit", "concurrency=0"],
        ["--limit", "bytes_per_minute=1.2.3"],
        ["--limit", "bytes_per_minute=1000"],  # an envelope may have a thousand times as many
        ["--limit", "audio_s_per_minute=29"],
        ["--expires", "0"],
        ["--expires", "soon"],
        ["--scope", "all"],
    ],
)
def test_wrong_options_make_no_key(file: Path, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["create", "fleet", *wrong, "--file", str(file)])
    assert ended.value.code == 2
    assert not file.exists()


def test_a_damaged_file_is_left_as_it_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("{")
    assert command.main(["create", "fleet", "--file", str(file)]) == 1
    assert "is no file of keys" in capsys.readouterr().err
    assert file.read_text() == "{"


# --- Who may start ----------------------------------------------------------------------------------------------------


def test_an_application_that_says_nothing_of_keys_does_not_start() -> None:
    with pytest.raises(start.NoAccessRule, match=r"Set `auth: {mode: keys}`.*access create.*or say `auth: none`"):
        build(Settings())


def test_one_that_wants_keys_needs_a_valid_one(file: Path) -> None:
    auth = AuthSettings(mode="keys", file=file)
    with pytest.raises(
        start.NoAccessRule, match=f"make a key: python -m deployments.access create OWNER --file {file}"
    ):
        start.check(auth)
    expired = add_key(file, expires=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(start.NoAccessRule, match="holds no key that is valid"):
        start.check(auth)
    add_key(file)
    start.check(auth)
    assert expired
    file.write_text("{")
    with pytest.raises(start.NoAccessRule, match="is no file of keys.*mend it"):
        start.check(auth)


def test_everybody_may_ask_where_that_is_said_in_one_word() -> None:
    settings = Settings.model_validate({"auth": "none"})
    assert settings.auth == AuthSettings(mode="none")
    start.check(settings.auth)


@pytest.mark.parametrize("wrong", ["keyz", {"mode": "keys", "file": "keys.json"}, {"mode": "keys", "pepper": 1}, {}])
def test_other_words_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"(?i)input|path|field|extra"):
        Settings.model_validate({"auth": wrong})


def test_a_cluster_of_this_machine_says_that_nobody_needs_a_key_and_stays_on_loopback(tmp_path: Path) -> None:
    config = tmp_path / "serve_config.yaml"
    config.write_text("http_options: {host: 0.0.0.0, port: 8000}\napplications: [{args: {auth: {mode: keys}}}]\n")
    cluster = LocalCluster(config, log=tmp_path / "log")
    assert cluster._config["http_options"]["host"] == "127.0.0.1"
    assert cluster._config["applications"][0]["args"]["auth"] == "none"
    cluster = LocalCluster(config, log=tmp_path / "log", overrides={"auth": {"mode": "keys"}})
    assert cluster._config["applications"][0]["args"]["auth"] == {"mode": "keys"}


# --- Ray's proxy ------------------------------------------------------------------------------------------------------


async def passed(first: KeysFirst, path: str, method: str = "POST", **headers: str) -> int:
    """The status of a request in the proxy."""
    transport = httpx.ASGITransport(app=first)
    async with httpx.AsyncClient(transport=transport, base_url="http://cluster") as client:
        return (await client.request(method, path, headers=headers)).status_code


def keys_first(path: Path, clock: Clock) -> KeysFirst:
    return KeysFirst(PlainTextResponse("passed"), lambda denied: PlainTextResponse("", denied.status), path, clock)


async def test_the_proxy_lets_requests_with_bodies_pass_where_their_key_is_valid(file: Path) -> None:
    token = add_key(file)
    expired = add_key(file, expires=datetime.now(UTC) - timedelta(seconds=1))
    clock = Clock()
    first = keys_first(file, clock)
    for route in ("/v1/emotion", "/v1/emotion/audio", "/v1/emotion:batch", "/v1/recordings", "/prefix/v1/emotion"):
        assert await passed(first, route) == 401
        assert await passed(first, route, **bearer(expired)) == 401
        assert await passed(first, route, **bearer(token)) == 200
    assert await passed(first, "/v1/emotion", method="OPTIONS") == 200  # the application answers what has no body
    assert await passed(first, "/healthz", method="GET") == 200
    remove_key(file, token)
    clock.now_s = 1.0
    assert await passed(first, "/v1/emotion", **bearer(token)) == 401


async def test_a_proxy_that_knows_no_keys_leaves_them_to_the_application(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    first = keys_first(file, clock)
    assert [await passed(first, "/v1/emotion") for _ in range(3)] == [200] * 3
    assert caplog.text.count("the application looks at keys by itself") == 1
    add_key(file)
    clock.now_s = 1.0
    assert await passed(first, "/v1/emotion") == 401
