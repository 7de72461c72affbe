"""What a target in process is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from random import Random
from typing import ClassVar

from tests.fuzz.mutations import mutate


class Target(ABC):
    """Bytes that strangers send, and the code that must answer them with a typed refusal at worst.

    Args:
        folder: for files; nothing in it is kept.

    Attributes:
        name: as `--targets` takes it.
        tokens: pieces that the format has names for.
        slowest_s: one input takes no longer.
        address_space: bytes that its process may have; None for no limit.
    """

    name: ClassVar[str]
    tokens: ClassVar[tuple[bytes, ...]] = ()
    slowest_s: ClassVar[float] = 2.0
    address_space: ClassVar[int | None] = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def seeds(self) -> list[bytes]:
        """Inputs that are right, and some that are known to be wrong, to begin with."""

    @abstractmethod
    def accepts(self, data: bytes) -> bool:
        """Whether an input is accepted; False where it is refused as the documentation says.

        Raises:
            Exception: any other error is a fault; AssertionError: what was made of the input is wrong.
        """

    def mutated(self, data: bytes, source: Random, others: tuple[bytes, ...]) -> bytes:
        """A similar input; a target that knows its format may do better than this."""
        return mutate(data, source, self.tokens, others)

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Ends what the target started."""
