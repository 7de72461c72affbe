"""Programs parse command lines and go no further, in a process of its own: some patch the interpreter when imported.

Standard input: a JSON list of command lines, each a list of words that begins with a module. Standard output: a JSON
list of what was wrong with each, empty where the program accepts it.
"""

from __future__ import annotations

import argparse
import io
import json
import runpy
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any


class Accepted(Exception):  # noqa: N818 - no error
    """The parser took the arguments."""


def stopping(parse: Callable[..., argparse.Namespace]) -> Callable[..., argparse.Namespace]:
    def parse_only(*args: Any, **options: Any) -> argparse.Namespace:
        parse(*args, **options)
        raise Accepted

    return parse_only


def wrong_with(words: list[str]) -> str:
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    sys.argv = list(words)
    try:
        with redirect_stdout(said), redirect_stderr(said):
            runpy.run_module(words[0], run_name="__main__")
    except Accepted:
        return ""
    except SystemExit as ended:
        return f"it ends with {ended.code}: {said.buffer.getvalue().decode()}"
    except ImportError as error:
        return str(error)
    return "it parsed nothing"


if __name__ == "__main__":
    for name in ("parse_args", "parse_intermixed_args"):
        setattr(argparse.ArgumentParser, name, stopping(getattr(argparse.ArgumentParser, name)))
    print(json.dumps([wrong_with(words) for words in json.load(sys.stdin)]))
