"""How the recurrent baselines read a log-Mel: 25 rows a second, as many as the LSTM of our own audio branch sees.

At 100 frames a second a recurrent network takes four times as long and remembers a fourth of the time.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from models.emotion.batch import mask_of
from models.emotion.branches import StandardizedMel

FRAMES_PER_ROW = 4


class MelRows(StandardizedMel):
    """Log-Mel (B, 80, T) → rows (B, ⌈T/4⌉, 80): standardised, then every four frames averaged."""

    def forward(self, log_mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-Mel with lengths int64 (B,) → rows and the bool mask (B, ⌈T/4⌉) of those that are real."""
        mask = mask_of(lengths, log_mel.shape[2])
        missing = -log_mel.shape[2] % FRAMES_PER_ROW
        frames = functional.pad(self.standardize(log_mel, mask), (0, missing))
        real = functional.pad(mask, (0, missing)).view(len(mask), -1, FRAMES_PER_ROW).sum(2)  # (B, ⌈T/4⌉), 0 to 4
        rows = frames.view(*frames.shape[:2], -1, FRAMES_PER_ROW).sum(3) / real.clamp(min=1)[:, None, :]
        return rows.transpose(1, 2), real > 0
