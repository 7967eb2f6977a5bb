"""Stacking and average pooling on numbers: the remainder of each utterance's own length is dropped (specification 0.2)."""

import pytest
import torch

from espnet2_avsr_llm.compression import COMPRESSIONS

X = torch.arange(14.0).reshape(1, 7, 2)  # frames [0 1] [2 3] ... [12 13]


@pytest.mark.parametrize(
    "name,rate,expected",
    [
        ("stack", 3, [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]),
        ("stack", 2, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]),
        ("avg_pool", 3, [[2, 3], [8, 9]]),
        ("avg_pool", 2, [[1, 2], [5, 6], [9, 10]]),
        ("avg_pool", 7, [[6, 7]]),
    ],
)
def test_numbers(name, rate, expected):
    out, lengths = COMPRESSIONS[name]()(X, torch.tensor([7]), rate)
    assert out[0].tolist() == expected and lengths.tolist() == [len(expected)]
    assert out.shape[2] == COMPRESSIONS[name]().output_size(2, rate)


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_rate_one_changes_nothing(name):
    out, lengths = COMPRESSIONS[name]()(X, torch.tensor([7]), 1)
    assert torch.equal(out, X) and lengths.tolist() == [7]


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_each_row_by_its_own_length(name):
    batch = torch.cat([X, X, X, X])
    dirty = torch.where((torch.arange(7) < torch.tensor([7, 5, 2, 0])[:, None])[..., None], batch, torch.tensor(99.0))
    out, lengths = COMPRESSIONS[name]()(dirty, torch.tensor([7, 5, 2, 0]), 3)
    assert lengths.tolist() == [2, 1, 0, 0]
    alone, _ = COMPRESSIONS[name]()(X[:, :5], torch.tensor([5]), 3)
    assert torch.equal(out[1, :1], alone[0])


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_shorter_than_the_rate(name):
    out, lengths = COMPRESSIONS[name]()(X, torch.tensor([7]), 16)
    assert out.shape == (1, 0, COMPRESSIONS[name]().output_size(2, 16)) and lengths.tolist() == [0]
