"""torch's attention for any number of heads and head size beside the features that it reads."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class SlimAttention(nn.MultiheadAttention):
    """Attention whose heads x head size need not be its features, as it is after channels went.

    torch's own takes `embed_dim` for both. Parameters keep their names; what it is called with and
    what it returns stay the same, and so does the scale of its scores, so that heads are compared
    as before. Made by `of` from an attention whose tensors are smaller already.

    Attributes:
        scale: What scores are multiplied by.
    """

    scale: float

    @classmethod
    def of(cls, attention: nn.MultiheadAttention, scale: float) -> SlimAttention:
        """Return the same object as a SlimAttention.

        Args:
            attention: Its `num_heads` and its tensors are as they shall be.
            scale: What scores are multiplied by.
        """
        attention.__class__ = cls
        attention._qkv_same_embed_dim = False  # noqa: SLF001 - keeps fused encoder layers away
        assert isinstance(attention, cls)  # noqa: S101 - for type checkers
        attention.scale = scale
        return attention

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return what attention reads together, and its weights where they are asked for."""
        is_single = query.dim() == 2
        given = [item.unsqueeze(0) if is_single else item for item in (query, key, value)]
        if not is_single and not self.batch_first:
            given = [item.transpose(0, 1) for item in given]
        heads = [
            self._divided(functional.linear(item, weight, bias))
            for item, weight, bias in zip(given, self._weights(), self._biases(), strict=True)
        ]
        q, k, v = heads
        scores = (q * self.scale) @ k.transpose(-2, -1)
        if attn_mask is not None:
            if attn_mask.dim() == 3:
                attn_mask = attn_mask.reshape(-1, self.num_heads, *attn_mask.shape[1:])
            scores = _masked(scores, attn_mask)
        elif is_causal:
            is_later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
            scores = _masked(scores, is_later)
        if key_padding_mask is not None:
            scores = _masked(scores, key_padding_mask.reshape(-1, 1, 1, scores.shape[-1]))
        weights = functional.dropout(scores.softmax(-1), self.dropout, self.training)
        read: torch.Tensor = self.out_proj((weights @ v).transpose(1, 2).flatten(-2))
        if average_attn_weights:
            weights = weights.mean(1)
        if is_single:
            return read.squeeze(0), weights.squeeze(0) if need_weights else None
        if not self.batch_first:
            read = read.transpose(0, 1)
        return read, weights if need_weights else None

    def _divided(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (n, t, heads x size) as (n, heads, t, size)."""
        n, t, _ = features.shape
        return features.reshape(n, t, self.num_heads, -1).transpose(1, 2)

    def _weights(self) -> list[torch.Tensor]:
        if self.in_proj_weight is not None:
            return list(self.in_proj_weight.chunk(3))
        return [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]

    def _biases(self) -> list[torch.Tensor | None]:
        if self.in_proj_bias is None:
            return [None, None, None]
        sizes = [len(weight) for weight in self._weights()]
        return list(torch.split(self.in_proj_bias, sizes))


def _masked(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    if mask.dtype == torch.bool:
        return scores.masked_fill(mask, float("-inf"))
    return scores + mask
