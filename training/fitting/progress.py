"""The progress display of training: one line a network, with its epoch, loss and validation score."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from training.fitting.loop import Epoch


class TrainingProgress:
    """A progress bar for each network that reports; where there is no terminal, a line for each epoch."""

    def __init__(self, epochs: int, console: Console) -> None:
        self._epochs = epochs
        self._console = console
        self._lines: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}{task.fields[validation]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> TrainingProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def report(self, name: str, epoch: Epoch) -> None:
        """Show an epoch of the network `name`."""
        score = "" if epoch.validation is None else f", validation {epoch.validation:.3f}"
        if not self._console.is_terminal:
            self._console.print(f"{name}, epoch {epoch.number}: loss {epoch.loss:.3f}{score}")
        if name not in self._lines:
            self._lines[name] = self._progress.add_task(name, total=self._epochs, loss=epoch.loss, validation=score)
        self._progress.update(self._lines[name], completed=epoch.number, loss=epoch.loss, validation=score)
