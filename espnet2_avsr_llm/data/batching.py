"""Batches as a budget of LLM tokens, with a cap on encoder frames (design contract 11).

A length file has one line ``utterance tokens,frames``: LLM tokens over all passes of the plan, and 25-fps encoder frames.
"""

from __future__ import annotations

from pathlib import Path


def read_lengths(path: Path | str) -> dict[str, tuple[int, int]]:
    """Tokens and frames of each utterance.

    Raises:
        ValueError: a line is not ``utterance tokens,frames``.
    """
    lengths = {}
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            try:
                utt, value = line.split()
                tokens, frames = value.split(",")
                lengths[utt] = int(tokens), int(frames)
            except ValueError:
                raise ValueError(f"{path}:{number}: expected 'utterance tokens,frames', found {line.strip()!r}") from None
    return lengths


def token_batches(lengths: dict[str, tuple[int, int]], max_tokens: int, max_frames: int | None, min_size: int = 1) -> list[list[str]]:
    """Group utterances of similar length so that no padded batch exceeds the budget.

    Args:
        lengths: tokens and frames of each utterance.
        max_tokens: LLM tokens of a batch, padding included (its size times its longest row).
        max_frames: 25-fps encoder frames of a batch, padding included; None for no cap.
        min_size: utterances of every batch at least (the number of DDP ranks); this goes before the budget.

    Returns:
        Batches of utterance ids, longest first, each sorted from long to short.

    Raises:
        ValueError: an utterance alone exceeds the budget, or there are fewer utterances than ``min_size``.
    """
    if len(lengths) < min_size:
        raise ValueError(f"{len(lengths)} utterances for {min_size} processes: use fewer processes, or more data in this set")
    batches: list[list[str]] = []
    longest = (0, 0)
    for utt in sorted(lengths, key=lambda u: (lengths[u], u), reverse=True):
        if not _fits(1, lengths[utt], max_tokens, max_frames):
            raise ValueError(
                f"{utt} has {lengths[utt][0]} LLM tokens and {lengths[utt][1]} frames, more than a batch may hold "
                f"({max_tokens} and {max_frames}): raise batch_bins or batch_frames, or drop long utterances in stage 4"
            )
        grown = tuple(map(max, longest, lengths[utt]))
        if batches and (len(batches[-1]) < min_size or _fits(len(batches[-1]) + 1, grown, max_tokens, max_frames)):
            batches[-1].append(utt)
            longest = grown
        else:
            batches.append([utt])
            longest = lengths[utt]
    if len(batches) > 1 and len(batches[-1]) < min_size:
        rest = batches[-2] + batches[-1]
        cut = len(rest) - min_size
        batches[-2:] = [rest[:cut], rest[cut:]] if cut >= min_size else [rest]
    return batches


def _fits(size: int, longest: tuple[int, int], max_tokens: int, max_frames: int | None) -> bool:
    return size * longest[0] <= max_tokens and (max_frames is None or size * longest[1] <= max_frames)
