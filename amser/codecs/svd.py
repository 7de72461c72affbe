"""The truncated SVD that `svd-f16` and `svd-i8` share (Amser+, IoT-J 2025, equations 2 to 4).

The log-Mel f, bands × frames, is sent as A = U√S (bands × rank) and B = √S Vᵀ (rank × frames). With the singular values
folded in evenly both factors have the same scale, and f ≈ A B.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from amser.codecs.base import CodecError, Float32, MalformedPayload, RankTooHigh, Setting

Float64 = NDArray[np.float64]

RANK = struct.Struct("<H")  # the header of both codecs
TAKES: Final = frozenset({"rate", "rank"})
DEFAULT_RATE: Final = 0.125  # the papers' operating point: rank 10 of 80


def factorise(log_mel: Float32, rank: int) -> tuple[Float64, Float64]:
    """A and B of the best approximation of this rank (Eckart and Young, 1936).

    The left singular vectors are the eigenvectors of the Gram matrix f fᵀ, 80 × 80 however long the speech: an order of
    magnitude cheaper than a full SVD, and in float64 the squaring costs only components far below what 16 bits can tell
    apart. The entry of largest magnitude in each column of A is positive, so that the same speech gives the same bytes.

    Args:
        log_mel: shape (bands, frames), finite.
        rank: 1 to min(bands, frames).

    Returns:
        A, float64 of shape (bands, rank), and B, float64 of shape (rank, frames); strongest component first.
    """
    matrix = log_mel.astype(np.float64)
    bands = matrix.shape[0]
    eigenvalues: NDArray[Any]
    eigenvectors: NDArray[Any]
    eigenvalues, eigenvectors = linalg.eigh(
        matrix @ matrix.T, subset_by_index=(bands - rank, bands - 1), check_finite=False
    )
    eigenvalues, eigenvectors = eigenvalues[::-1], eigenvectors[:, ::-1]  # SciPy sorts them upwards
    largest = eigenvectors[np.abs(eigenvectors).argmax(axis=0), np.arange(rank)]
    u = eigenvectors * np.where(largest < 0, -1.0, 1.0)
    # An eigenvalue this small is rounding noise: dividing by its root would blow the noise up.
    real = eigenvalues > eigenvalues[0] * bands * np.finfo(np.float64).eps
    root = np.where(real, np.abs(eigenvalues) ** 0.25, 1.0)  # √S, as the eigenvalues are S²
    a = np.where(real, u * root, 0.0)
    b = np.where(real[:, None], (u.T @ matrix) / root[:, None], 0.0)
    return a, b


def read_rank(payload: bytes) -> int:
    """The rank at the head of a payload, not yet checked."""
    if len(payload) < RANK.size:
        raise MalformedPayload(f"the payload has {len(payload)} bytes, too few for its header", f"{RANK.size} or more")
    rank: int = RANK.unpack_from(payload)[0]
    return rank


def check_rank(payload: bytes, bands: int, frames: int, max_rank: int) -> int:
    """The rank at the head of a payload, if the receiver takes it and a matrix of this size can have it.

    Raises:
        RankTooHigh: above `max_rank` or min(bands, frames).
        MalformedPayload: rank 0, or no header.
    """
    rank = read_rank(payload)
    highest = min(bands, frames, max_rank)
    if rank < 1:
        raise MalformedPayload("the payload has rank 0", f"1 to {highest}")
    if rank > highest:
        raise RankTooHigh(f"the payload has rank {rank} for {bands} bands and {frames} frames", f"1 to {highest}")
    return rank


def components(setting: Setting, bands: int, frames: int) -> int:
    """The rank that a setting means for a matrix of this size. Raises CodecError for one out of its range."""
    if setting.rank is not None:
        if setting.rate is not None:
            raise CodecError("both a rate and a rank were given", "one of them")
        if setting.rank < 1:
            raise CodecError(f"the rank is {setting.rank}", "1 or more")
        return min(setting.rank, bands, frames)
    rate = DEFAULT_RATE if setting.rate is None else setting.rate
    if not 0 < rate <= 1:
        raise CodecError(f"the rate is {rate}", "above 0, up to 1")
    return rank_for_rate(rate, bands, frames)


def rank_ratio(rank: int, bands: int, frames: int) -> float:
    """r / k, the "rate" of the AMSER papers: components kept of k = min(bands, frames). It is not a ratio of sizes."""
    return rank / min(bands, frames)


def element_ratio(rank: int, bands: int, frames: int) -> float:
    """r (m + n + 1) / (m n): numbers in the truncated SVD over numbers in the log-Mel. From 1 on nothing is saved."""
    return rank * (bands + frames + 1) / (bands * frames)


def rank_for_rate(rate: float, bands: int, frames: int) -> int:
    """The rank whose r / k is nearest to `rate`, at least 1: 10 for 12.5 % of 80 bands."""
    return max(1, round(rate * min(bands, frames)))
