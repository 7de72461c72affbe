"""Modular co-attention: how one modality is read in the light of another (Amser+, IoT-J 2025, figure 3, equation 6).

The blocks are those of MCAN (Yu et al., CVPR 2019, section 3): `SA` is a layer of self-attention, `SGA` a layer of
self-attention followed by attention guided by another modality, and `CoAttention` stacks them as encoder and decoder.
A mask is bool, True where a row is real; every masked sequence must have at least one real row.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional


class MultiHeadAttention(nn.Module):
    """softmax(q kᵀ / √d_k) v, with d_k the width of a head (equation 6 writes √k).

    MCAN also drops attention weights at random; here dropout acts on the residuals alone, which lets torch choose its
    fused kernel and saves an eighth of a training step on a CPU.
    """

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden width {hidden} is not a multiple of the {heads} heads")
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.merge = nn.Linear(hidden, hidden)

    def forward(self, queries: Tensor, keys: Tensor, key_mask: Tensor) -> Tensor:
        """Read `keys` for each row of `queries`.

        Args:
            queries: (B, n, hidden).
            keys: (B, m, hidden); the values are read from the same rows.
            key_mask: bool (B, m); rows that are False are never read.

        Returns:
            (B, n, hidden).
        """
        attended = functional.scaled_dot_product_attention(
            self._split(self.query(queries)),
            self._split(self.key(keys)),
            self._split(self.value(keys)),
            attn_mask=key_mask[:, None, None, :],
        )
        return cast(Tensor, self.merge(attended.transpose(1, 2).flatten(2)))

    def _split(self, rows: Tensor) -> Tensor:
        batch, length, _ = rows.shape
        return rows.view(batch, length, self.heads, -1).transpose(1, 2)  # (B, heads, n, d_k)


class FeedForward(nn.Sequential):
    """Two linear layers applied to each row alone: (B, n, hidden) → (B, n, hidden)."""

    def __init__(self, hidden: int, width: int, dropout: float) -> None:
        super().__init__(nn.Linear(hidden, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, hidden))


class SA(nn.Module):
    """Self-attention and feed-forward, each with a residual and a norm after it, as in MCAN."""

    def __init__(self, hidden: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(hidden, heads)
        self.attention_norm = nn.LayerNorm(hidden)
        self.feed_forward = FeedForward(hidden, feed_forward, dropout)
        self.feed_forward_norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """(B, n, hidden) and bool (B, n) → (B, n, hidden)."""
        rows = self.attention_norm(rows + self.dropout(self.attention(rows, rows, mask)))
        return cast(Tensor, self.feed_forward_norm(rows + self.dropout(self.feed_forward(rows))))


class SGA(nn.Module):
    """Self-attention, then attention whose keys and values come from the guide, then feed-forward."""

    def __init__(self, hidden: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(hidden, heads)
        self.attention_norm = nn.LayerNorm(hidden)
        self.guided_attention = MultiHeadAttention(hidden, heads)
        self.guided_attention_norm = nn.LayerNorm(hidden)
        self.feed_forward = FeedForward(hidden, feed_forward, dropout)
        self.feed_forward_norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Tensor, mask: Tensor, guide: Tensor, guide_mask: Tensor) -> Tensor:
        """Rows (B, n, hidden) with mask (B, n), guide (B, m, hidden) with mask (B, m) → (B, n, hidden)."""
        rows = self.attention_norm(rows + self.dropout(self.attention(rows, rows, mask)))
        rows = self.guided_attention_norm(rows + self.dropout(self.guided_attention(rows, guide, guide_mask)))
        return cast(Tensor, self.feed_forward_norm(rows + self.dropout(self.feed_forward(rows))))


class CoAttention(nn.Module):
    """MCAN's encoder–decoder: every `SGA` layer is guided by the output of the last `SA` layer."""

    def __init__(self, hidden: int, heads: int, feed_forward: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(SA(hidden, heads, feed_forward, dropout) for _ in range(layers))
        self.decoder = nn.ModuleList(SGA(hidden, heads, feed_forward, dropout) for _ in range(layers))

    def forward(self, guide: Tensor, guide_mask: Tensor, rows: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Guide (B, m, hidden) with mask (B, m), rows (B, n, hidden) with mask (B, n) → both, same shapes."""
        for layer in self.encoder:
            guide = layer(guide, guide_mask)
        for layer in self.decoder:
            rows = layer(rows, mask, guide, guide_mask)
        return guide, rows
