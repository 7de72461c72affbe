"""`jobs`: recordings of any length, which the cluster answers by and by."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from amser.client.commands.codec_options import spoken_language
from amser.client.commands.deliver import add_cluster_options, cluster_options
from amser.client.commands.send import ADVICE_IF_UNREACHABLE
from amser.client.commands.terminal import FAILED, OK, columns, complain
from amser.client.device import DeviceSettings
from amser.client.exchange.failures import SendFailed, Unreachable
from amser.client.exchange.recordings import Job, RecordingAnswer
from amser.client.synchronous import Client

DESCRIPTION = """\
Uploads recordings of any length and shows the jobs that they become: how far
they are, then words and emotion over time. Without --wait it returns at once;
a job is asked for by its id."""

EPILOG = """\
examples:
  python -m amser jobs --submit meeting.mp3 --wait
  python -m amser jobs 0f1a3c
  python -m amser jobs 0f1a3c --cancel

exit codes: 0 all went well, 1 something failed, 2 wrong usage, 130 stopped by
Ctrl-C (the job goes on)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds those of `jobs`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("jobs", nargs="*", metavar="ID", help="of a job")
    parser.add_argument(
        "--submit", type=Path, action="append", default=[], metavar="FILE", help="a recording; may repeat"
    )
    parser.add_argument("--wait", action="store_true", help="until they have ended")
    parser.add_argument("--cancel", action="store_true", help="end the jobs that are named")
    parser.add_argument("--language", type=spoken_language, metavar="CODE", help="of --submit (default: detected)")
    parser.add_argument("--json", action="store_true", help="one JSON object a job, a line each, instead of the tables")
    add_cluster_options(parser)


def run(options: argparse.Namespace) -> int:
    """Submits, shows or cancels; returns the exit code."""
    if not options.jobs and not options.submit:
        options.parser.error("name the id of a job, or --submit a recording")
    if options.cancel and (options.submit or options.wait):
        options.parser.error("--cancel goes with ids alone")
    try:
        settings = DeviceSettings(**cluster_options(options))
    except ValueError as error:
        options.parser.error(str(error))
    console = Console(highlight=False, width=columns())
    code = OK
    with Client(settings) as client:
        for begin in (*(str(each) for each in options.submit), *options.jobs):
            try:
                job = _job(options, client, begin)
            except Unreachable as error:
                return complain(str(error), ADVICE_IF_UNREACHABLE)
            except (SendFailed, ValueError) as error:
                code = complain(f"{begin}: {error}")
                continue
            except OSError as error:
                code = complain(f"{begin}: {error.strerror or error}")
                continue
            if job.problem:
                code = FAILED
            if options.json:
                print(json.dumps(_plain(job), ensure_ascii=False), flush=True)
            else:
                for part in _shown(job):
                    console.print(part)
    return code


def _job(options: argparse.Namespace, client: Client, begin: str) -> Job:
    """The job that a file becomes, or that an id names; ended, where that is waited for."""
    if options.cancel:
        return client.cancel(begin)
    job = client.submit(Path(begin), language=options.language) if Path(begin) in options.submit else client.job(begin)
    if not options.wait:
        return job
    with Console(stderr=True).status("waiting") as status:
        return client.ended(job, show=lambda now: status.update(f"{now.status}, {100 * now.progress:.0f} %"))


def _plain(job: Job) -> dict[str, Any]:
    result = None if job.result is None else dict(job.result.raw)
    problem = dict(job.problem) or None
    return {"id": job.id, "status": job.status, "progress": job.progress, "result": result, "problem": problem}


def _shown(job: Job) -> Iterator[Table | Text]:
    yield Text.assemble((job.id, "bold"), f" {job.status}, {100 * job.progress:.0f} %")
    if job.problem:
        reasons = [str(job.problem[name]) for name in ("title", "detail") if job.problem.get(name)]
        yield Text(": ".join(reasons) or "failed", style="red")
    if job.result is not None:
        yield _segments(job.result)


def _segments(answer: RecordingAnswer) -> Table:
    warnings = f" ({', '.join(answer.warnings)})" if answer.warnings else ""
    caption = f"{answer.seconds:,.1f} s, {answer.language}, {answer.emotion or 'no speech'}{warnings}"
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True, caption=caption, caption_justify="left")
    rows.add_column("from–to (s)", justify="right", no_wrap=True)
    rows.add_column("words", ratio=1)
    rows.add_column("emotion", no_wrap=True)
    for each in answer.segments:
        emotion = "none" if each.emotion is None else f"{each.emotion} {each.confidence:.2f}"
        rows.add_row(f"{each.start_s:,.1f}–{each.end_s:,.1f}", Text(each.text), emotion)
    return rows
