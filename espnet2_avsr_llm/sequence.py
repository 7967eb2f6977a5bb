"""Lay out one LLM input per utterance: BOS <audio> A </audio> <video> V </video> prompt text EOS; a joint stream has no delimiters.

Padding goes to the front and is masked, so that an utterance gives the same numbers in any batch (design contract 1).

Shapes: `B` batch, `N` LLM tokens, `D` LLM width.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

IGNORE = -100  # label of positions that are not scored


class Role(IntEnum):
    """What a position of the sequence is."""

    PAD, BOS, DELIMITER, AUDIO, VIDEO, PROMPT, TEXT, AUDIOVISUAL = range(8)


@dataclass
class LLMInput:
    """A batch laid out for the LLM; padding in front.

    Attributes:
        inputs_embeds: (B, N, D).
        attention_mask: (B, N), 1 where valid.
        position_ids: (B, N), counted from each row's first valid position.
        labels: (B, N), -100 where not scored; the text and one EOS otherwise.
        roles: (B, N), a :class:`Role` for each position.
    """

    inputs_embeds: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor
    roles: Tensor

    @property
    def num_labels(self) -> int:
        """Length of the longest text (with EOS) of the batch."""
        return int((self.labels != IGNORE).sum(1).max())


Segment = tuple[Role, Tensor, "Tensor | None"]  # role, embeddings (n, D), labels (n,) of scored segments


def lay_out(rows: list[list[Segment]]) -> LLMInput:
    """Concatenate each row's segments and pad the rows in front.

    Args:
        rows: for each utterance its segments in order.

    Returns:
        The batch.
    """
    device = rows[0][0][1].device
    embeds = [torch.cat([x for _, x, _ in row]) for row in rows]
    roles = [torch.cat([torch.full((len(x),), role, device=device) for role, x, _ in row]) for row in rows]
    labels = [torch.cat([torch.full((len(x),), IGNORE, device=device) if y is None else y for _, x, y in row]) for row in rows]
    padded_roles = _pad_front(roles, int(Role.PAD))
    mask = (padded_roles != Role.PAD).long()
    return LLMInput(
        inputs_embeds=_pad_front(embeds, 0.0),
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        labels=_pad_front(labels, IGNORE),
        roles=padded_roles,
    )


def _pad_front(rows: list[Tensor], value: float) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value, padding_side="left")
