"""The learning rate against its formula."""

import math

import pytest
import torch

from espnet2_avsr_llm.scheduler import WarmupCosine


def rates(warmup, total, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = WarmupCosine(optimizer, warmup)
    scheduler.set_total(total)
    out = []
    for _ in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return out


def test_cosine_to_zero():
    expected = [2.0 * 0.5 * (1 + math.cos(math.pi * t / 8)) for t in range(9)]
    assert rates(0.0, 8, 9) == pytest.approx(expected) and expected[-1] == 0


def test_linear_warmup_comes_first():
    found = rates(0.4, 10, 11)
    assert found[:4] == pytest.approx([2.0 * k / 5 for k in (1, 2, 3, 4)])
    assert found[4] == 2.0 and found[10] == pytest.approx(0) and found[4:] == sorted(found[4:], reverse=True)


def test_never_rises_again():
    assert rates(0.0, 3, 6)[3:] == pytest.approx([0, 0, 0])


@pytest.mark.parametrize("warmup", [-0.1, 1.0, 500])
def test_warmup_is_a_share(warmup):
    with pytest.raises(ValueError, match="share of all updates"):
        rates(warmup, 3, 1)
