"""Router and its losses against numbers worked out by hand (arXiv 2505.14336 section 2, 2510.04136 equations 2 and 3)."""

import math

import pytest
import torch

from espnet2_avsr_llm.routing import Router, balance_loss, z_loss


def router(logits, top_k, renormalise=False):
    """A router whose logits are those of the rows of ``logits`` for one-hot inputs."""
    weight = torch.tensor(logits).T
    module = Router(weight.shape[1], weight.shape[0], top_k, renormalise)
    module.weight.data = weight.clone()
    return module


def one_hot(module):
    return module(torch.eye(module.in_features))


def test_probabilities_are_over_all_experts_and_gates_are_the_largest():
    routing = one_hot(router([[math.log(1.0), math.log(5.0), math.log(2.0), math.log(2.0)]], 2))
    torch.testing.assert_close(routing.probs, torch.tensor([[0.1, 0.5, 0.2, 0.2]]))
    assert routing.choice.tolist() == [[1, 2]]
    torch.testing.assert_close(routing.gates, torch.tensor([[0.5, 0.2]]))


def test_renormalised_gates_add_up_to_one():
    routing = one_hot(router([[math.log(1.0), math.log(5.0), math.log(2.0), math.log(2.0)]], 2, renormalise=True))
    torch.testing.assert_close(routing.gates, torch.tensor([[5 / 7, 2 / 7]]))


@pytest.mark.parametrize("experts,top_k", [(4, 2), (23, 4), (64, 5)])
def test_ties_go_to_the_lower_index(experts, top_k):
    equal = one_hot(router([[0.0] * experts], top_k))
    assert equal.choice.tolist() == [list(range(top_k))]
    last = one_hot(router([[0.0] * (experts - 1) + [1.0]], top_k))
    assert last.choice.tolist() == [[experts - 1, *range(top_k - 1)]]


def test_routing_is_in_float32():
    module = router([[0.1, 0.2, 0.3]], 1).bfloat16()
    routing = module(torch.ones(1, 1, dtype=torch.bfloat16))
    assert routing.logits.dtype == routing.probs.dtype == routing.gates.dtype == torch.float32


def test_autocast_leaves_it_in_float32():
    module, x = Router(64, 8, 2, False), torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        routing = module(x)
    assert routing.logits.dtype == torch.float32 and torch.equal(routing.logits, module(x).logits)


@pytest.mark.parametrize("top_k", [0, 5])
def test_top_k_within_the_experts(top_k):
    with pytest.raises(ValueError, match=rf"from 1 to the number of experts \(4\), not {top_k}"):
        Router(8, 4, top_k, False)


@pytest.mark.parametrize("experts,top_k", [(4, 1), (4, 2), (23, 4)])
def test_balance_of_uniform_probabilities_is_k_and_of_collapse_is_e(experts, top_k):
    tokens = 10
    uniform = torch.full((tokens, experts), 1 / experts)
    anything = torch.stack([torch.randperm(experts)[:top_k] for _ in range(tokens)])
    torch.testing.assert_close(balance_loss(uniform, anything), torch.tensor(float(top_k)))
    collapsed = torch.zeros(tokens, experts)
    collapsed[:, :top_k] = 1 / top_k
    torch.testing.assert_close(balance_loss(collapsed, torch.arange(top_k).expand(tokens, top_k)), torch.tensor(float(experts)))


def test_balance_by_hand():
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
    # f = (1/2, 2/2, 1/2), P = (0.3, 0.45, 0.25): 3 (0.15 + 0.45 + 0.125)
    torch.testing.assert_close(balance_loss(probs, torch.tensor([[0, 1], [1, 2]])), torch.tensor(2.175))


def test_balance_of_several_layers_at_once():
    probs, choice = torch.rand(3, 7, 5).softmax(-1), torch.randint(5, (3, 7, 2))
    torch.testing.assert_close(balance_loss(probs, choice), torch.stack([balance_loss(p, c) for p, c in zip(probs, choice)]))


def test_balance_pushes_probability_away_from_the_crowded_expert():
    logits = torch.zeros(4, 3, requires_grad=True)
    balance_loss(logits.softmax(-1), torch.tensor([[0], [0], [0], [1]])).backward()
    gradient = logits.grad.sum(0)
    assert gradient[0] > 0 > gradient[2] and gradient[1] > gradient[2]


def test_z_by_hand():
    logits = torch.tensor([[math.log(1.0), math.log(3.0)], [math.log(0.5), math.log(0.5)]])
    torch.testing.assert_close(z_loss(logits), torch.tensor(math.log(4.0) ** 2 / 2))


def test_no_token_gives_no_loss():
    assert balance_loss(torch.zeros(0, 4), torch.zeros(0, 2, dtype=torch.long)) == 0
    assert z_loss(torch.zeros(0, 4)) == 0
