"""Sinks: α, Θ and cosines against their definitions, planted sinks, rotations, the MLP's account; on several kinds of LLM."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from espnet2_avsr_llm.analysis.sinks import TAU, hooked, interventions, mlp_origin, rotate, rotating, trace
from espnet2_avsr_llm.pass_plan import Pass

PASS = Pass("avsr", {"audio": 4, "video": 2})
KINDS = ["llama", "mistral", "qwen2", "gemma2", "phi3", "gpt2", "opt", "gpt_neox"]


@contextmanager
def planted(model, tokens, size=2.0, layer=2, feature=3):
    """One feature of ``size`` times the threshold written into some tokens at the output of a layer."""

    def write(module, args, output):
        h = (output[0] if isinstance(output, tuple) else output).clone()
        h[0, list(tokens), feature] = size * TAU * h.abs().median()
        return (h, *output[1:]) if isinstance(output, tuple) else h

    with hooked([model.llm.layers[layer - 1]], write):
        yield


def draw(model, seed, std):
    """Other weights for the model's matrices."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.llm.model.parameters():
        if p.dim() > 1:
            p.data.normal_(0.0, std, generator=generator)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_definitions(make_llm, make_prefix, kind):
    """Against all hidden states and attentions of one plain run, on every architecture."""
    model = make_llm(kind)
    inputs = make_prefix(model)
    seen = trace(model, inputs, PASS, tau=5.0, keep_maps=True)
    assert model.llm.model.config._attn_implementation == ("eager" if kind == "gemma2" else "sdpa")  # as before
    model.llm.model.set_attn_implementation("eager")
    states, n = [], inputs.roles.shape[1]
    with hooked(model.llm.layers, lambda m, args, out: states.append((out[0] if isinstance(out, tuple) else out)[0].detach())), torch.no_grad():
        out = model.llm.model(inputs_embeds=inputs.inputs_embeds, attention_mask=inputs.attention_mask, output_attentions=True)
    weights = torch.stack(out.attentions)[:, 0]
    np.testing.assert_allclose(seen.maps, weights.mean(1), atol=1e-6)
    for i in range(n):
        expected = weights[:, :, i:, i].sum((1, 2)) / (weights.shape[1] * (n - i))
        np.testing.assert_allclose(seen.attention[:, i], expected, atol=1e-6)
    np.testing.assert_allclose(seen.maps.sum(-1), 1.0, atol=1e-5)
    for layer, h in enumerate(states):
        median = h.abs().median()
        for i in range(n):
            assert seen.cosine[layer, i] == pytest.approx(float(h[i] @ h[0] / (h[i].norm() * h[0].norm())), abs=1e-5)
            assert seen.peak[layer, i] == pytest.approx(float(h[i].abs().max() / median), rel=1e-5)
            assert seen.massive[layer].get(i, []) == [j for j in range(h.shape[1]) if h[i, j].abs() >= 5.0 * median]
        token, feature, ratio = seen.largest[layer][0]
        assert h.abs().max() == h[token, feature].abs() and ratio == pytest.approx(float(h[token, feature] / median), rel=1e-5)


def test_planted_sinks_are_found_and_nothing_else(make_llm, make_prefix):
    """Precision and recall 1 over 50 random models: BOS and up to four other tokens, at twice the threshold."""
    rng, models = np.random.default_rng(0), [make_llm(kind) for kind in KINDS]
    for seed in range(50):
        model = draw(models[seed % len(models)], seed, std=float(rng.choice([0.02, 0.1, 0.3])))
        n = int(rng.integers(12, 60))
        inputs = make_prefix(model, n, seed, scale=float(rng.choice([0.02, 1.0])))
        tokens = {0, *rng.choice(np.arange(1, n), rng.integers(1, 5), replace=False).tolist()}
        assert trace(model, inputs, PASS).sinks == {}, seed
        with planted(model, tokens, feature=int(rng.integers(model.llm.width))):
            seen = trace(model, inputs, PASS)
        assert set(seen.sinks) == tokens and seen.origin == 2, seed
        assert all(2 in layers for layers in seen.sinks.values())


def test_sinks_lie_in_layers_2_to_the_last_but_one(make_llm, make_prefix):
    model = make_llm()
    inputs = make_prefix(model)
    with planted(model, [4], layer=4):  # the last of four layers
        seen = trace(model, inputs, PASS)
    assert seen.sinks == {} and seen.origin == 4 and seen.massive[3] == {4: [3]}
    with planted(model, [4], layer=1, size=50):
        assert trace(model, inputs, PASS).sinks == {4: [2, 3]}


def test_attention_of_a_uniform_model(make_llm, make_prefix):
    """With queries of zero, position k attends 1/(k+1) to each token it sees: α_i is the mean of 1/(k+1) over k from i."""
    model = make_llm()
    for name, p in model.llm.model.named_parameters():
        if "q_proj" in name:
            p.data.zero_()
    n = 12
    expected = [np.mean([1 / (k + 1) for k in range(i, n)]) for i in range(n)]
    np.testing.assert_allclose(trace(model, make_prefix(model, n), PASS).attention, [expected] * 4, atol=1e-6)


def test_rotation_keeps_norms_and_takes_directions():
    h = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
    turned = rotate(h, {1: 3, 4: 0})
    torch.testing.assert_close(turned.norm(dim=-1), h.norm(dim=-1))
    for token, other in {1: 3, 4: 0}.items():
        assert torch.cosine_similarity(turned[0, token], h[0, other], dim=0) == pytest.approx(1.0, abs=1e-6)
    assert torch.equal(turned[0, [0, 2, 3]], h[0, [0, 2, 3]]) and rotate(h.bfloat16(), {1: 3}).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KINDS)
def test_rotating_reaches_the_layers_input(make_llm, make_prefix, kind):
    model = make_llm(kind)
    inputs, states = make_prefix(model), []
    with rotating(model.llm, 3, {6: 0}), hooked([model.llm.layers[2]], lambda m, args: states.append(args[0][0]), before=True):
        trace(model, inputs, PASS)
    plain = trace(model, inputs, PASS)
    assert torch.cosine_similarity(states[0][6], states[0][0], dim=0) == pytest.approx(1.0, abs=1e-6)
    assert plain.cosine[1, 6] < 0.9 and not model.llm.layers[2]._forward_pre_hooks


@pytest.fixture
def massive(make_llm, make_prefix):
    """A Llama whose second layer writes one massive feature into the tokens that lie along the first one.

    Attention is off; inner feature 7 of the MLP opens for states along BOS alone and is weighted into feature 5.
    """
    model = make_llm()
    inputs = make_prefix(model, 20)
    x = inputs.inputs_embeds[0]
    x[1:] -= x[1:] @ x[0][:, None] * x[0] / x[0].square().sum()  # orthogonal to BOS
    x[9] = 2 * x[0]  # except for a second sink
    direction = x[0] / x[0].norm()
    for name, p in model.llm.model.named_parameters():
        if "o_proj" in name or "down_proj" in name:
            p.data.zero_()
    mlp = model.llm.layers[1].mlp
    mlp.gate_proj.weight.data[7] = direction * 10
    mlp.up_proj.weight.data[7] = direction
    mlp.down_proj.weight.data[5, 7] = 1e3
    return model, inputs


def test_origin_in_the_mlp(massive):
    model, inputs = massive
    seen = trace(model, inputs, PASS)
    assert set(seen.sinks) == {0, 9} and seen.origin == 2 and seen.massive[1] == {0: [5], 9: [5]}
    account = mlp_origin(model, inputs, PASS, seen)
    assert (account["layer"], account["feature"], account["inner"][0]["feature"]) == (2, 5, 7)
    first = account["inner"][0]
    norm = np.sqrt(model.llm.width)  # of a state behind RMSNorm
    assert first["weight"] == 1e3
    assert first["gate"]["sinks"] == pytest.approx(10 * norm, rel=1e-3) and abs(first["gate"]["others"]) < 1e-2
    assert first["up"]["sinks"] == pytest.approx(norm, rel=1e-3)
    assert first["contribution"]["sinks"] == pytest.approx(1e3 * 10 * norm * norm, rel=1e-3)


def test_rotations_remove_and_create(massive):
    model, inputs = massive
    seen = trace(model, inputs, PASS)
    found = interventions(model, inputs, PASS, seen)
    assert found["remove"]["onto"] == {9: 8} and found["remove"]["sinks_after"] == [0]
    assert found["remove"]["peak"][0] > TAU > found["remove"]["peak"][1]
    (created,) = found["create"]["onto"]
    assert created not in (0, 9) and found["create"]["sinks_after"] == sorted([0, 9, created])
    assert found["create"]["peak"][1] > TAU > found["create"]["peak"][0]
    assert set(trace(model, inputs, PASS).sinks) == {0, 9}  # no hook is left


def test_what_cannot_be_said_says_why(make_llm, make_prefix):
    model = make_llm()
    inputs = make_prefix(model)
    seen = trace(model, inputs, PASS)
    assert "no massive activation" in mlp_origin(model, inputs, PASS, seen)["none"]
    assert interventions(model, inputs, PASS, seen) == {"none": "token 0 is no sink"}
    with planted(model, [0]):
        seen = trace(model, inputs, PASS)
        assert interventions(model, inputs, PASS, seen)["remove"] == {"none": "no sink besides token 0"}
    gpt = make_llm("gpt2")
    with planted(gpt, [0]):
        seen = trace(gpt, make_prefix(gpt), PASS)
        assert "GPT2LMHeadModel have no single MLP" in mlp_origin(gpt, make_prefix(gpt), PASS, seen)["none"]


def test_one_layers_attention_at_a_time(make_llm, make_prefix):
    """Weights of a layer are gone before the next layer computes its own."""
    import weakref

    model = make_llm()
    alive, counts = [], []

    def watch(module, args, output):
        counts.append(sum(w() is not None for w in alive))
        alive.append(weakref.ref(output[1]))

    with hooked([layer.self_attn for layer in model.llm.layers], watch):
        trace(model, make_prefix(model), PASS)
    assert counts == [0, 0, 0, 0]


def test_an_llm_without_attention_weights_is_refused(make_llm, make_prefix):
    model = make_llm("falcon")
    with pytest.raises(ValueError, match="FalconForCausalLM gives no attention weights, even with its eager attention"):
        trace(model, make_prefix(model), PASS)
    assert model.llm.model.config._attn_implementation == "sdpa"


def test_layers_without_attention_are_blank(make_llm, make_prefix):
    """As the linear layers of hybrid LLMs: here a layer whose attention keeps its weights to itself."""
    model = make_llm()
    with hooked([model.llm.layers[1].self_attn], lambda m, args, out: (out[0], None)):
        seen = trace(model, make_prefix(model), PASS, keep_maps=True)
    assert np.isnan(seen.attention).all(1).tolist() == np.isnan(seen.maps).all((1, 2)).tolist() == [False, True, False, False]
    assert not np.isnan(seen.cosine).any()


def test_a_batch_is_refused(make_llm, make_prefix):
    model = make_llm()
    inputs = make_prefix(model)
    inputs.inputs_embeds = inputs.inputs_embeds.repeat(2, 1, 1)
    with pytest.raises(ValueError, match="one utterance at a time, found a batch of 2"):
        trace(model, inputs, PASS)
