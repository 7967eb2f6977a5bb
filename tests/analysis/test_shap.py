"""Shapley values: axioms and brute force for the estimators, the set function against the model, planted use of the streams."""

from itertools import permutations

import numpy as np
import pytest
import torch

from espnet2_avsr_llm.analysis.shap import ESTIMATORS, Settings, TokenScores, exact, explain, permutation, sampling
from espnet2_avsr_llm.analysis.sinks import hooked
from espnet2_avsr_llm.sequence import IGNORE, Role, lay_out

ASK = {"permutation": 2001, "sampling": 4000, "exact": 0}


def random_game(players, outputs, seed=0):
    """Any set function: a table of 2^p random rows."""
    table = np.random.default_rng(seed).normal(size=(2**players, outputs))
    return lambda kept: table[(np.asarray(kept) > 0) @ (1 << np.arange(players))]


def by_definition(f, players):
    """Mean marginal over all orders."""
    phi = []
    for order in permutations(range(players)):
        kept = np.tril(np.ones((players + 1, players)), -1)[:, np.argsort(order)]
        values = f(kept)
        phi.append((values[1:] - values[:-1])[np.argsort(order)])
    return np.mean(phi, 0)


def by_subsets(f, players):
    """The sum over subsets, one after the other."""
    from itertools import combinations
    from math import comb

    phi = np.zeros((players, f(np.zeros((1, players))).shape[1]))
    for k in range(players):
        others = [i for i in range(players) if i != k]
        for size in range(players):
            for chosen in combinations(others, size):
                kept = np.zeros((2, players))
                kept[:, list(chosen)] = kept[1, k] = 1
                without, with_ = f(kept)
                phi[k] += (with_ - without) / (players * comb(players - 1, size))
    return phi


@pytest.mark.parametrize("players", [1, 2, 3, 5, 6])
def test_exact_is_the_definition(players):
    f = random_game(players, 3)
    np.testing.assert_allclose(exact(f, players, 0, 0)[0], by_definition(f, players), atol=1e-12)


@pytest.mark.parametrize("players", [8, 10])
def test_exact_is_the_sum_over_subsets(players):
    f = random_game(players, 2)
    np.testing.assert_allclose(exact(f, players, 0, 0)[0], by_subsets(f, players), atol=1e-12)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_axioms(name):
    """Efficiency, dummy, symmetry and linearity on a game of 7 players: 0 a dummy, 1 and 2 alike."""
    game = random_game(7, 2)

    def f(kept):
        kept = np.array(kept, float)
        kept[:, 0] = 0
        swapped = kept[:, [0, 2, 1, 3, 4, 5, 6]]
        return game(kept) + game(swapped)

    ask = 10000 if name != "exact" else 0
    phi, error = ESTIMATORS[name](f, 7, ask, 3)
    empty, full = f(np.stack([np.zeros(7), np.ones(7)]))
    np.testing.assert_allclose(phi.sum(0), full - empty, atol=1e-6 if name != "sampling" else 1e-4)
    slack = np.maximum(5 * error, 1e-9)
    assert (np.abs(phi[0]) <= np.maximum(slack[0], 1e-4 if name == "sampling" else 0)).all()
    assert (np.abs(phi[1] - phi[2]) <= slack[1] + slack[2]).all()
    double, _ = ESTIMATORS[name](lambda kept: 2 * f(kept), 7, ask, 3)
    np.testing.assert_allclose(double, 2 * phi, atol=1e-3 if name == "sampling" else 1e-9)


@pytest.mark.parametrize("estimator", [permutation, sampling])
def test_known_values_within_their_standard_error(estimator):
    """A majority-like game with interactions; the errors in units of their standard error look like a standard normal's."""
    players, weights = 12, np.linspace(0.1, 2.0, 12)

    def f(kept):
        total = np.asarray(kept, float) @ weights
        return np.stack([np.tanh(total - 6), np.maximum(total - 8, 0)], 1)

    truth = exact(f, players, 0, 0)[0]
    scores = []
    for seed in range(5):
        phi, error = estimator(f, players, 3000, seed)
        assert (error > 0).all()
        scores.append((phi - truth) / error)
    scores = np.array(scores)
    assert 0.6 < np.sqrt(np.mean(scores**2)) < 1.4 and np.mean(np.abs(scores) < 2) > 0.85, np.sqrt(np.mean(scores**2))
    assert np.abs(phi - truth).max() < 0.1


@pytest.mark.parametrize("estimator", [permutation, sampling])
def test_estimates_repeat_and_leave_numpys_generator_alone(estimator):
    f = random_game(6, 2)
    np.random.seed(1)
    first = estimator(f, 6, 60, 0)[0]
    drawn = np.random.rand()
    np.random.seed(1)
    assert np.random.rand() == drawn
    np.testing.assert_array_equal(estimator(f, 6, 60, 0)[0], first)
    assert not np.array_equal(estimator(f, 6, 60, 1)[0], first)


def test_an_output_without_variance_beside_one_with():
    """shap's sampling explainer alone gives NaN for the first."""
    weights = np.array([1.0, 2.0, -1.0])

    def f(kept):
        kept = np.asarray(kept, float)
        return np.stack([kept @ weights, kept[:, 0] * kept[:, 1] + kept[:, 2]], 1)

    for estimator in ESTIMATORS.values():
        phi, _ = estimator(f, 3, 2000, 0)
        np.testing.assert_allclose(phi[:, 0], weights, atol=1e-6)
        np.testing.assert_allclose(phi[:, 1], [0.5, 0.5, 1.0], atol=0.1)


def test_too_few_evaluations_and_too_many_players():
    f = random_game(4, 1)
    with pytest.raises(ValueError, match="one walk over 4 players takes 9 evaluations, but max_evals is 8"):
        permutation(f, 4, 8, 0)
    with pytest.raises(ValueError, match="4 players take 16 evaluations at least, but max_evals is 15"):
        sampling(f, 4, 15, 0)
    with pytest.raises(ValueError, match="17 players need 2\\^17"):
        exact(f, 17, 0, 0)
    assert np.isnan(permutation(f, 4, 9, 0)[1]).all()  # of one walk there is no standard error


# ---- the set function --------------------------------------------------------------------------------------------------


@pytest.fixture
def utterance(make_model, make_batch):
    """A model, a pass, and the input of one utterance with a hypothesis of five tokens."""
    model = make_model(compression="avg_pool").eval()
    batch = make_batch((9600, 15, 5))
    (pass_,) = model.plan.passes()
    with torch.no_grad():
        inputs, _ = model.prepare(model.encode(model.inputs(batch)), pass_, (batch["text"], batch["text_lengths"]))
    return model, pass_, inputs


def one_by_one(model, pass_, inputs, removal, score, kept):
    """A score by hand: one coalition, logits at every position."""
    x, roles, labels = inputs.inputs_embeds[0].clone(), inputs.roles[0], inputs.labels[0]
    players = [i for i, r in enumerate(roles.tolist()) if r in (Role.AUDIO, Role.VIDEO)]
    gone = [i for i, k in zip(players, kept) if not k]
    for i in gone:
        x[i] = inputs.inputs_embeds[0][roles == roles[i]].mean(0) if removal == "mean" else 0.0
    stay = [i for i in range(len(x)) if removal != "remove" or i not in gone]
    with model.use(pass_), torch.no_grad():
        logits = model.llm.model(inputs_embeds=x[stay][None]).logits[0]
    values = []
    for at, i in enumerate(stay):
        if labels[i] != IGNORE:
            row = logits[at] if score == "released" else logits[at - 1]
            values.append(float((row.log_softmax(0) if score == "log_prob" else row)[labels[i]]))
    return values


@pytest.mark.parametrize("removal", ["zero", "mean", "remove"])
@pytest.mark.parametrize("score", ["log_prob", "logit", "released"])
def test_scores_by_hand(utterance, removal, score):
    """Batches of four coalitions with different numbers of players against one at a time."""
    model, pass_, inputs = utterance
    f = TokenScores(model, inputs, pass_, removal, score, batch_size=4)
    assert len(f.players) == 7 + 7 and len(f.labels) == 6
    kept = np.random.default_rng(0).integers(0, 2, (9, 14))
    kept[0], kept[1] = 0, 1
    values = f(kept)
    for row, value in zip(kept, values):
        np.testing.assert_allclose(value, one_by_one(model, pass_, inputs, removal, score, row), atol=1e-4)
    assert values.std(0).min() > 1e-3  # the players matter


def test_a_coalition_runs_once(utterance):
    model, pass_, inputs = utterance
    f, runs = TokenScores(model, inputs, pass_, batch_size=3), []
    model.llm.model.register_forward_pre_hook(lambda m, args, kwargs: runs.append(len(kwargs["inputs_embeds"])), with_kwargs=True)
    kept = np.eye(14)[[0, 1, 0, 2, 3, 1]]
    first = f(kept)
    assert runs == [3, 1] and f.evaluations == 4
    np.testing.assert_array_equal(f(kept[::-1]), first[::-1])
    assert runs == [3, 1]


def test_an_utterance(utterance):
    """Efficiency of the permutation walks to 1e-6, and agreement with the sampling estimator within the errors of both."""
    model, pass_, inputs = utterance
    found = explain(model, inputs, pass_, Settings(max_evals=600))
    assert found.phi.shape == found.error.shape == (14, 6)
    assert found.streams.tolist() == ["audio"] * 7 + ["video"] * 7 and found.token_ids[-1] == model.llm.tokens.eos_id
    np.testing.assert_allclose(found.phi.sum(0), found.full - found.empty, atol=1e-6)
    again = explain(model, inputs, pass_, Settings(max_evals=600))
    np.testing.assert_array_equal(found.phi, again.phi)
    other = explain(model, inputs, pass_, Settings("sampling", 3000))
    z = (found.phi - other.phi) / np.hypot(found.error, other.error)
    assert np.mean(np.abs(z) < 3) > 0.95


def test_batch_size_does_not_matter(utterance):
    model, pass_, inputs = utterance
    results = [explain(model, inputs, pass_, Settings(max_evals=100, batch_size=n)).phi for n in (1, 7, 64)]
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=2e-5)


def test_head_of_a_bfloat16_llm_multiplies_in_float32(make_llm, make_prefix):
    """Of the same states; alone it would round the logits to eight bits."""
    model = make_llm()
    model.llm.model.to(torch.bfloat16)
    inputs, states = make_prefix(model), []
    inputs.labels[0, -4:] = torch.tensor([5, 6, 7, 8])
    head = model.llm.model.get_output_embeddings()
    head.weight.data.mul_(30)
    with hooked([head], lambda m, args, out: states.append(args[0])):
        values = TokenScores(model, inputs, None, score="logit")(np.ones((1, 12)))
    expected = torch.einsum("td,td->t", states[0][0, :-1].double(), head.weight.double()[[5, 6, 7, 8]])
    np.testing.assert_allclose(values[0], expected.detach(), rtol=1e-5)
    assert not np.allclose(values[0], expected.bfloat16().double().detach(), rtol=1e-4)


def test_wrong_settings(utterance):
    model, pass_, inputs = utterance
    with pytest.raises(ValueError, match="removal: 'none'; choose from zero, mean, remove"):
        TokenScores(model, inputs, pass_, removal="none")
    with pytest.raises(ValueError, match="score: 'prob'; choose from log_prob, logit, released"):
        TokenScores(model, inputs, pass_, score="prob")
    with pytest.raises(ValueError, match="estimator: 'kernel'; choose from permutation, sampling, exact"):
        Settings("kernel")
    inputs.labels[:] = IGNORE
    with pytest.raises(ValueError, match="found 1 rows, 0 labels"):
        TokenScores(model, inputs, pass_)


# ---- planted use of the streams ----------------------------------------------------------------------------------------


@pytest.fixture
def planted(make_llm):
    """``planted(hears, sees, scale)``: a Llama that averages what it reads, of sound and of lips as strongly as told.

    Attention is uniform (queries of zero) and passes feature 0 (sound) and feature 1 (lips) into feature 2, which the head reads for
    every token of the text. Audio tokens carry feature 0, video tokens feature 1.
    """
    model = make_llm(num_hidden_layers=1, num_key_value_heads=4)

    def plant(hears, sees, tokens=10, seed=0):
        weights = dict(model.llm.model.named_parameters())
        for name, w in weights.items():
            w.data.fill_(1.0 if "norm" in name else 0.0)
        weights["model.layers.0.self_attn.v_proj.weight"].data[0, :2] = torch.tensor([hears, sees])
        weights["model.layers.0.self_attn.o_proj.weight"].data[2, 0] = 1.0
        weights["lm_head.weight"].data[10:20, 2] = torch.linspace(1, 3, 10)
        generator = torch.Generator().manual_seed(seed)
        sizes = 0.5 + torch.rand(tokens, generator=generator)
        x = torch.zeros(2, tokens, model.llm.width)
        x[0, :, 0] = x[1, :, 1] = sizes
        x[..., 3] = 1.0  # so that removing a token does not change what norms divide by alone
        text = torch.zeros(4, model.llm.width)
        text[:, 4] = 1.0
        fixed = [(Role.BOS, text[:1], None), (Role.PROMPT, text[:1], None), (Role.TEXT, text, torch.tensor([12, 14, 17, 19]))]
        return model, lay_out([[fixed[0], (Role.AUDIO, x[0], None), (Role.VIDEO, x[1], None), *fixed[1:]]])

    return plant


@pytest.mark.parametrize("hears, sees, share, slack", [(1.0, 0.0, 1.0, 1e-6), (0.0, 1.0, 0.0, 1e-6), (0.3, 0.3, 0.5, 0.02)])
def test_planted_use_of_the_streams(planted, hears, sees, share, slack):
    model, inputs = planted(hears, sees)
    found = explain(model, inputs, None, Settings(max_evals=1000))
    size = np.abs(found.phi)
    assert size.sum() > 0.1
    assert size[found.streams == "audio"].sum() / size.sum() == pytest.approx(share, abs=slack)
