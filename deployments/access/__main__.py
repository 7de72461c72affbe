"""`python -m deployments.access`: makes, lists and revokes API keys. Running replicas follow within a second."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.table import Table

from amser.client.commands.terminal import OK, Parser, columns, complain, guarded
from deployments.access.key_file import KeyFileBroken, changing, read
from deployments.access.keys import Key, KeyRing, new_key
from deployments.access.rules import SCOPES
from deployments.access.settings import DEFAULT_KEY_FILE, Limits, LimitSettings

PROGRAM: Final = "deployments.access"
DEFAULT_DAYS: Final = 365
LIMITS: Final = tuple(Limits.model_fields)

EPILOG = f"""\
examples:
  python -m deployments.access create kitchen-app
  python -m deployments.access create fleet --expires 90 --limit requests_per_minute=600
  python -m deployments.access list
  python -m deployments.access revoke k3f9a2b1

The file holds hashes, not keys: a key that is lost is replaced by a new one.
To change a key, make a second one of the same owner, hand it out, and revoke
the first. On a cluster, copy the file to every node.

limits: {", ".join(LIMITS)};
with "device." before the name, those of each device under the key.

exit codes: 0 done, 1 not so, 2 wrong usage, 130 stopped by Ctrl-C"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: _run(options), PROGRAM)


def _run(options: argparse.Namespace) -> int:
    path: Path = options.file.expanduser()
    try:
        return int(options.run(options, path))
    except KeyFileBroken as error:
        return complain(str(error), program=PROGRAM)
    except OSError as error:
        return complain(f"{path} cannot be written: {error.strerror}", program=PROGRAM)


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="python -m deployments.access",
        description="Makes, lists and revokes the API keys of a cluster.",
        epilog=EPILOG,
        formatter_class=form,
    )
    common = Parser(add_help=False)
    common.add_argument(
        "--file", type=Path, default=DEFAULT_KEY_FILE, help="of the keys, as `auth.file` (default: %(default)s)"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    create = commands.add_parser("create", parents=[common], help="make a key; it is printed once and kept nowhere")
    create.add_argument("owner", help="whose it is, as people call them")
    create.add_argument("--scope", action="append", choices=SCOPES, help="what it is for (default: all of them)")
    create.add_argument(
        "--expires",
        type=_days,
        default=DEFAULT_DAYS,
        metavar="DAYS",
        help="after so many days, or never (default: %(default)s)",
    )
    create.add_argument(
        "--limit", type=_limit, action="append", default=[], metavar="NAME=N", help="that differs from the cluster's"
    )
    create.add_argument("--note", default="", help="for yourself")
    create.add_argument("--quiet", action="store_true", help="print the key alone, for a program or a file")
    create.set_defaults(run=_create)
    show = commands.add_parser("list", parents=[common], help="show the keys, without their secrets")
    show.add_argument("--json", action="store_true", help="the file as JSON, without hashes, instead of the table")
    show.set_defaults(run=_list)
    revoke = commands.add_parser("revoke", parents=[common], help="end a key")
    revoke.add_argument("id", help="of the key: the 8 characters behind amser_")
    revoke.set_defaults(run=_revoke)
    return parser


def _days(text: str) -> int | None:
    if text == "never":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 36_500:
        raise argparse.ArgumentTypeError(f"{text} is no number of days, nor never")
    return int(text)


@dataclass(frozen=True, slots=True)
class _Limit:
    of: str  # key or device
    name: str
    value: float


def _limit(text: str) -> _Limit:
    found = re.fullmatch(r"(device\.)?(\w+)=([\d.]+)", text)
    if found is None or found[2] not in LIMITS:
        raise argparse.ArgumentTypeError(f"{text} is none of NAME=N; names: {', '.join(LIMITS)}")
    limit = _Limit("device" if found[1] else "key", found[2], float(found[3]))
    try:
        Limits.model_validate({limit.name: limit.value})
    except (ValidationError, ValueError):
        raise argparse.ArgumentTypeError(f"{text}: {found[3]} is no such limit") from None
    return limit


def _create(options: argparse.Namespace, path: Path) -> int:
    limits: dict[str, dict[str, float]] = {}
    for limit in options.limit:
        limits.setdefault(limit.of, {})[limit.name] = limit.value
    expires = None
    if options.expires is not None:
        expires = (datetime.now(UTC) + timedelta(days=options.expires)).replace(microsecond=0)
    scopes = frozenset(options.scope or SCOPES)
    try:
        key, token = new_key(options.owner, scopes, expires, LimitSettings.model_validate(limits), options.note)
    except ValidationError as error:
        return complain(error.errors()[0]["msg"], program=PROGRAM)
    with changing(path) as rings:
        rings[0] = KeyRing(keys=(*rings[0].keys, key))
    print(token)
    if not options.quiet:
        note = Console(stderr=True, highlight=False, soft_wrap=True)
        until = f"until {expires:%Y-%m-%d}" if expires else "for ever"
        note.print(
            f"This key of {key.owner} is valid {until}. It is shown only now; {path} has its hash.", markup=False
        )
        note.print("Clients send it as `Authorization: Bearer KEY`, or with AMSER_KEY or --key-file.", markup=False)
    return OK


def _list(options: argparse.Namespace, path: Path) -> int:
    ring = read(path)
    if options.json:
        print(json.dumps([key.model_dump(mode="json", exclude={"hash"}, exclude_unset=True) for key in ring.keys]))
        return OK
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("id", "owner", "scopes", "created", "expires", "limits", "note"):
        table.add_column(name, overflow="fold", no_wrap=name in ("id", "created", "expires"))
    for key in ring.keys:
        expired = key.expires is not None and key.expires <= datetime.now(UTC)
        expires = f"{key.expires:%Y-%m-%d}" if key.expires else "never"
        table.add_row(
            key.id,
            key.owner,
            ", ".join(sorted(key.scopes)),
            f"{key.created:%Y-%m-%d}",
            f"{expires}, expired" if expired else expires,
            _limits(key),
            key.note,
            style="dim" if expired else None,
        )
    Console(highlight=False, markup=False, width=columns()).print(table)
    return OK


def _limits(key: Key) -> str:
    own = key.limits.model_dump(exclude_unset=True)
    return ", ".join(
        ("device." if of == "device" else "") + f"{name}={value}"
        for of, limits in own.items()
        for name, value in limits.items()
    )


def _revoke(options: argparse.Namespace, path: Path) -> int:
    with changing(path) as rings:
        left = tuple(key for key in rings[0].keys if key.id != options.id)
        if len(left) == len(rings[0].keys):
            return complain(f"{path} has no key {options.id}", program=PROGRAM)
        rings[0] = KeyRing(keys=left)
    print(f"The key {options.id} is revoked.")
    return OK


if __name__ == "__main__":
    sys.exit(main())
