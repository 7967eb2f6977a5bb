"""The layout of the LLM's input, by hand."""

import torch

from espnet2_avsr_llm.sequence import IGNORE, Role, lay_out


def segment(role, *values, labels=None):
    x = torch.tensor(values, dtype=torch.float32)[:, None]
    return role, x, None if labels is None else torch.tensor(labels)


def test_two_rows_by_hand():
    long = [segment(Role.BOS, 1), segment(Role.AUDIO, 2, 3), segment(Role.PROMPT, 4), segment(Role.TEXT, 5, 6, labels=[50, 60])]
    short = [segment(Role.BOS, 7), segment(Role.VIDEO, 8), segment(Role.TEXT, 9, labels=[90])]
    out = lay_out([long, short])
    assert out.inputs_embeds.squeeze(-1).tolist() == [[1, 2, 3, 4, 5, 6], [0, 0, 0, 7, 8, 9]]
    assert out.attention_mask.tolist() == [[1] * 6, [0, 0, 0, 1, 1, 1]]
    assert out.position_ids.tolist() == [[0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 1, 2]]
    assert out.labels.tolist() == [[IGNORE] * 4 + [50, 60], [IGNORE] * 5 + [90]]
    assert out.roles.tolist() == [
        [Role.BOS, Role.AUDIO, Role.AUDIO, Role.PROMPT, Role.TEXT, Role.TEXT],
        [Role.PAD, Role.PAD, Role.PAD, Role.BOS, Role.VIDEO, Role.TEXT],
    ]
    assert out.num_labels == 2


def test_without_text_nothing_is_scored():
    out = lay_out([[segment(Role.BOS, 1), segment(Role.PROMPT, 2)]])
    assert out.labels.tolist() == [[IGNORE, IGNORE]] and out.num_labels == 0
