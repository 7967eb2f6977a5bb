"""Padding with lengths."""

import numpy as np
import torch

from espnet2_avsr_llm.data.collate import collate


def test_rows_are_padded_at_the_end_and_keep_their_type():
    samples = [
        ("b", {"speech": np.ones(2, np.float32), "video": np.full((1, 2, 2), 7, np.uint8), "text": np.array([5, 6, 7])}),
        ("a", {"speech": np.ones(3, np.float32), "video": np.zeros((0, 2, 2), np.uint8), "text": np.array([9])}),
    ]
    utts, batch = collate(samples)
    assert utts == ["b", "a"]
    assert batch["speech"].tolist() == [[1, 1, 0], [1, 1, 1]] and batch["speech_lengths"].tolist() == [2, 3]
    assert batch["video"].dtype == torch.uint8 and batch["video"].shape == (2, 1, 2, 2) and batch["video_lengths"].tolist() == [1, 0]
    assert batch["text"].tolist() == [[5, 6, 7], [9, 0, 0]] and batch["text_lengths"].tolist() == [3, 1]


def test_a_batch_without_any_video():
    _, batch = collate([(u, {"video": np.zeros((0, 88, 88), np.uint8)}) for u in "ab"])
    assert batch["video"].shape == (2, 0, 88, 88)
