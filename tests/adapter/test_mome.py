"""MoME against its equations, in every covered LLM and placement (arXiv 2510.04136)."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from espnet2_avsr_llm.adapter.mome import DENSE_LIMIT, PLACEMENTS, PRE_NORM, Mixture, MoME
from espnet2_avsr_llm.build import build
from espnet2_avsr_llm.inference.generate import Search, generate
from espnet2_avsr_llm.pass_plan import Pass

PASSES = [
    {"task": "avsr", "rates": {"audio": 4, "video": 2}, "weight": 0.5},
    {"task": "avsr", "rates": {"audio": 16, "video": 5}, "weight": 2.0},
]
PASS = Pass("avsr", {"audio": 4, "video": 2})
SMALL = {"bottleneck": 3, "routed": 6, "top_k": 2, "shared": 1}
ROWS = ((16000, 25, 5), (8000, 13, 2))


@pytest.fixture(params=PLACEMENTS)
def placement(request):
    return request.param


def settings(placement="mhsa", passes=PASSES, checkpointing=False, **options):
    """Configuration of a tiny model with MoME."""
    conf = {**SMALL, "placement": placement, **options}
    return dict(compression="avg_pool", passes=passes, adapter="mome", adapter_conf=conf, llm_conf={"gradient_checkpointing": checkpointing})


def reference(mixture, x, router="shared"):
    """Equations 1 to 3, expert after expert."""
    s = (x @ mixture.routers[router].weight.T).softmax(-1)
    kept = torch.zeros_like(s).scatter(-1, s.topk(mixture.top_k).indices, 1.0) * s
    gates = torch.cat([torch.ones(*s.shape[:-1], mixture.shared), kept], -1)
    experts = zip(mixture.down, mixture.down_bias, mixture.up, mixture.up_bias, gates.unbind(-1))
    return sum(g[..., None] * (F.gelu(x @ down.T + down_bias) @ up + up_bias) for down, down_bias, up, up_bias, g in experts)


def random_(module, seed=0, scale=0.3):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * scale)
    return module


# ---- the experts of a layer -------------------------------------------------------------------------------------------


def mixture(shared=1, **options):
    conf = {"width": 8, **SMALL, "shared": shared, **options}
    return random_(Mixture(routers=["shared"], **conf))


@pytest.mark.parametrize("shared", [0, 1, 3])
def test_equations_1_to_3(shared):
    module, x = mixture(shared), torch.randn(2, 5, 8)
    out, routing = module(x, "shared")
    torch.testing.assert_close(out, reference(module, x))
    assert routing.choice.shape == (2, 5, 2) and (routing.gates.sum(-1) < 1).all()  # not renormalised


def test_one_expert_by_hand():
    """One routed expert of width 1: its gate is softmax over one logit, 1."""
    module = Mixture(2, 1, routed=1, top_k=1, shared=0, routers=["shared"])
    with torch.no_grad():
        for name, value in (("down", [[[1.0, -1.0]]]), ("down_bias", [[0.5]]), ("up", [[[2.0, 0.0]]]), ("up_bias", [[0.0, 1.0]])):
            getattr(module, name).copy_(torch.tensor(value))
    # 3 - 1 + 0.5 = 2.5; GELU(2.5) = 2.5 * 0.99379
    torch.testing.assert_close(module(torch.tensor([[3.0, 1.0]]), "shared")[0], torch.tensor([[2 * 2.4844758, 1.0]]))


@pytest.mark.parametrize("shared", [0, 2])
def test_both_ways_to_compute_agree(shared):
    found = []
    for path in ("dense", "grouped"):
        module = mixture(shared, routed=9, top_k=3)
        x = torch.randn(3, 7, 8, generator=torch.Generator().manual_seed(5)).requires_grad_()
        y = getattr(module, path)(x, module.routers["shared"](x))
        y.square().sum().backward()
        found.append([y, x.grad, *(p.grad for p in module.parameters())])
    for dense, grouped in zip(*found):
        torch.testing.assert_close(dense, grouped, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bottleneck,path", [(DENSE_LIMIT // 4, "dense"), (DENSE_LIMIT // 4 + 1, "grouped")])
def test_the_way_is_chosen_by_the_columns_computed_in_vain(bottleneck, path, monkeypatch):
    module = mixture(bottleneck=bottleneck)  # 6 - 2 experts in vain
    monkeypatch.setattr(module, path, lambda x, routing: "taken")
    assert module(torch.randn(1, 8), "shared")[0] == "taken"


def test_gradient_reaches_the_chosen_experts_and_the_router_only():
    module, x = mixture(), torch.randn(1, 8)
    out, routing = module(x, "shared")
    out.square().sum().backward()
    chosen = {0, *(1 + e for e in routing.choice[0].tolist())}
    for p in (module.down, module.down_bias, module.up, module.up_bias):
        assert {e for e in range(7) if p.grad[e].abs().max() > 0} == chosen
    assert module.routers["shared"].weight.grad.abs().max() > 0


# ---- in the LLM -------------------------------------------------------------------------------------------------------

SIZES = dict(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
SIZES |= dict(head_dim=4, pad_token_id=0, bos_token_id=1, eos_token_id=2)


def bare_llm(kind, **config):
    """A tiny LLM of a model type with large random weights, in the place of a CausalLM."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(SIZES | config))).eval()
    return SimpleNamespace(model=random_(model), width=16, pinned=False)


@pytest.mark.parametrize("kind", PRE_NORM)
def test_equation_of_the_layer_in_every_covered_llm(kind, placement):
    llm = bare_llm(kind)
    adapter = random_(MoME(llm, [PASS], placement, **SMALL), seed=1)
    calls = []
    layers = llm.model.get_decoder().layers
    for layer in layers:
        layer.register_forward_hook(lambda _, args, kwargs, output: calls.append((args, kwargs, output)), with_kwargs=True, always_call=True)
    with torch.no_grad():
        unadapted = llm.model(torch.arange(3, 9)[None]).logits
        calls.clear()
        with adapter.use(PASS):
            adapted = llm.model(torch.arange(3, 9)[None]).logits
        assert len(calls) == 2
        for layer, part, (args, kwargs, output) in zip(layers, adapter.layers, calls):
            z = args[0] if args else kwargs.pop("hidden_states")
            normed = layer.input_layernorm(z)
            h = z + layer.self_attn(normed, *args[1:], **kwargs)[0]  # outside of `use` the hooks do nothing
            if placement == "mhsa":
                h = h + reference(part, normed)
            ffn = layer.mlp(layer.post_attention_layernorm(h))
            added = {"ffn": lambda: reference(part, layer.post_attention_layernorm(h)), "mhsa": lambda: 0.0, "layer": lambda: reference(part, normed)}
            expected = h + ffn + added[placement]()
            torch.testing.assert_close(output[0] if isinstance(output, tuple) else output, expected, atol=1e-5, rtol=1e-5)
        assert (adapted - unadapted).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["gemma2", "olmo2", "cohere", "granite", "gpt2", "gpt_neox"])
def test_other_llms_are_refused_with_their_parts(kind):
    with torch.device("meta"):
        llm = bare_llm(kind)
    with pytest.raises(ValueError, match=rf"This LLM is '{kind}', whose layer has the parts \w+, \w+"):
        MoME(llm, [PASS], **SMALL)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral"])
def test_training_starts_from_the_unchanged_llm(kind, dtype, placement):
    llm = bare_llm(kind)
    llm.model.to(getattr(torch, dtype))
    ids = torch.arange(3, 9)[None]
    with torch.no_grad():
        before = llm.model(ids).logits
        adapter = MoME(llm, [PASS], placement, **SMALL)
        with adapter.use(PASS, torch.ones_like(ids)):
            during = llm.model(ids).logits
            assert len(adapter._call.routings) == 2  # the experts did run
    assert torch.equal(before, during) and before.dtype == during.dtype
    assert adapter.layers[0].down.dtype == torch.float32


def test_wrong_options(tiny_config):
    with pytest.raises(ValueError, match="mome placement: 'attention'; choose from ffn, mhsa, layer"):
        build(tiny_config(adapter="mome", adapter_conf={"placement": "attention"}))
    with pytest.raises(ValueError, match="mome routers: 'task'; choose from shared, scale"):
        build(tiny_config(adapter="mome", adapter_conf={"routers": "task"}))


# ---- losses, passes, recomputes ---------------------------------------------------------------------------------------


def prepared(model, batch):
    pass_ = model.plan.all_passes()[0]
    inputs, _ = model.prepare(model.encode(model.inputs(batch)), pass_, (batch["text"], batch["text_lengths"]))
    return pass_, inputs


def run(model, pass_, inputs):
    """Logits of valid positions, and the balance loss."""
    with model.use(pass_, inputs.attention_mask):
        logits = model.llm(inputs.inputs_embeds, inputs.attention_mask, inputs.position_ids, inputs.inputs_embeds.shape[1]).logits
        losses = model.adapter.losses()
    return logits[inputs.attention_mask.bool()], losses["mome_balance"]


@pytest.mark.parametrize("top_k", [1, 2])
def test_balance_of_indifferent_routers_is_k(make_model, make_batch, top_k):
    model = make_model(**settings(top_k=top_k, balance=0.01))
    for name, p in model.named_parameters():
        if ".routers." in name:
            p.data.zero_()
    losses = [v for k, v in model(**make_batch(*ROWS))[1].items() if "balance" in k]
    torch.testing.assert_close(torch.cat(losses), torch.full((2,), 0.01 * top_k))


def test_what_lies_in_the_padding_changes_nothing(make_model, make_batch, placement):
    model = make_model(**settings(placement))
    pass_, inputs = prepared(model, make_batch(*ROWS))
    padding = inputs.attention_mask == 0
    assert padding.any()
    logits, balance = run(model, pass_, inputs)
    inputs.inputs_embeds = inputs.inputs_embeds.detach().clone()
    inputs.inputs_embeds[padding] = 5.0
    other, dirty = run(model, pass_, inputs)
    torch.testing.assert_close(other, logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dirty, balance, atol=1e-6, rtol=1e-6)
    # nor does more padding
    pad = lambda x: torch.cat([torch.zeros_like(x[:, :3]), x], 1)
    longer = type(inputs)(*(pad(getattr(inputs, n)) for n in ("inputs_embeds", "attention_mask", "position_ids", "labels", "roles")))
    other, padded = run(model, pass_, longer)
    torch.testing.assert_close(other, logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(padded, balance, atol=1e-6, rtol=1e-6)


def test_balance_is_the_mean_over_layers_of_all_valid_tokens(make_model, make_batch):
    model = make_model(**settings(balance=1.0))
    pass_, inputs = prepared(model, make_batch(*ROWS))
    seen = []
    for layer in model.adapter.layers:
        layer.routers["shared"].register_forward_hook(lambda _, args, out: seen.append(out))
    _, balance = run(model, pass_, inputs)
    expected = []
    for routing in seen:
        p = torch.cat([row[mask.bool()] for row, mask in zip(routing.probs, inputs.attention_mask)])
        expected.append(6 * (torch.zeros_like(p).scatter(1, p.topk(2).indices, 1.0).mean(0) * p.mean(0)).sum())
    torch.testing.assert_close(balance, torch.stack(expected).mean())


def test_nothing_is_recorded_in_generation(make_model, make_batch, monkeypatch):
    model = make_model(**settings()).eval()
    calls = []
    enter = MoME.use
    monkeypatch.setattr(MoME, "use", lambda self, *args: calls.append(enter(self, *args)) or calls[-1])
    recorded = []
    model.adapter.layers[0].register_forward_hook(lambda *_: recorded.append(len(model.adapter._call.routings)))
    batch = make_batch(*ROWS)
    generate(model, model.encode(model.inputs(batch)), PASS, [1.0, 0.5], Search(beam_size=3, max_tokens_per_second=5, min_tokens=2))
    assert len(calls) == 1 and len(recorded) > 2 and set(recorded) == {0}
    assert model.adapter._call is None


@pytest.mark.parametrize("routers", ["shared", "scale"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
def test_a_step_of_several_passes_is_the_sum_of_single_steps(make_model, make_batch, placement, routers, checkpointing):
    model = make_model(**settings(placement, routers=routers, balance=1.0, checkpointing=checkpointing))
    batch, passes = make_batch(*ROWS), model.plan.all_passes()

    def gradients(passes):
        model.zero_grad()
        model.plan._passes = passes
        loss, stats, _ = model(**batch)
        loss.backward()
        return {n: p.grad.clone() if p.grad is not None else torch.zeros_like(p) for n, p in model.named_parameters() if p.requires_grad}

    together, single = gradients(passes), [gradients([p]) for p in passes]
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, sum(s[name] for s in single), atol=1e-5, rtol=1e-4)
        assert gradient.abs().max() > 1e-5, f"{name} gets no gradient"
    if routers == "scale":  # a pass reaches the routers of its scale alone
        for s, scale in zip(single, ("scale_audio4_video2", "scale_audio16_video5")):
            assert {n.split(".")[-2] for n, g in s.items() if ".routers." in n and g.abs().max() > 0} == {scale}


def test_recomputing_changes_neither_loss_nor_statistics_nor_gradients(make_model, make_batch, placement):
    found = []
    for checkpointing in (False, True):
        model = make_model(**settings(placement, balance=1.0, checkpointing=checkpointing))
        calls = []
        model.llm.model.model.layers[0].self_attn.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        loss, stats, _ = model(**make_batch(*ROWS))
        loss.backward()
        assert len(calls) == len(PASSES) * (2 if checkpointing else 1)
        found.append((stats, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    assert found[0][0] == found[1][0]
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, atol=1e-6, rtol=1e-5)


# ---- devices; without a GPU `meta` is the other one -------------------------------------------------------------------


def test_experts_are_where_their_layer_is():
    llm = bare_llm("llama")
    llm.model.model.layers[1].to("meta")
    adapter = MoME(llm, [PASS], **SMALL)
    assert [{p.device.type for p in layer.parameters()} for layer in adapter.layers] == [{"cpu"}, {"meta"}]


@torch.no_grad()
def test_experts_stay_beside_an_llm_on_a_device_of_its_own(make_model, make_batch, placement):
    conf = settings(placement, balance=1.0)
    model = make_model(**conf | {"llm_conf": {"device": "cpu"}})
    pass_, inputs = prepared(model, make_batch(*ROWS))
    expected = run(model, pass_, inputs)
    model.to("meta")
    assert {p.device.type for p in model.projector.parameters()} == {"meta"}
    for found, before in zip(run(model, pass_, inputs), expected):
        assert torch.equal(found, before)
    assert {p.device.type for p in make_model(**conf).to("meta").parameters()} == {"meta"}  # another LLM and its experts follow


def test_the_checkpoint_holds_the_experts_and_loads(make_model):
    model, other = (make_model(seed=seed, **settings()) for seed in (0, 1))
    states = model.state_dict()
    kinds = ("down", "down_bias", "up", "up_bias", "routers.shared.weight")
    assert {n for n in states if n.startswith("adapter.")} == {f"adapter.layers.{i}.{kind}" for i in (0, 1) for kind in kinds}
    other.load_state_dict(states)
    assert all(torch.equal(other.state_dict()[n], states[n]) for n in states if n.startswith("adapter."))


# ---- sizes ------------------------------------------------------------------------------------------------------------

# section 4.2 of the specification: LLM, bottleneck, routed, top_k -> millions active (the paper's two digits below) and in all
PUBLISHED = [
    ("llama-3.2-3b", 12, 23, 4, 12.73, 53.6),
    ("llama-3.2-1b", 8, 23, 4, 3.54, 14.1),
    ("llama-3.1-8b", 8, 23, 4, 14.16, 56.5),
    ("llama-3.2-3b", 1, 15, 3, 2.32, 5.4),
    ("llama-3.2-1b", 1, 15, 3, 0.885, 2.1),
    ("llama-3.1-8b", 1, 15, 3, 3.54, 8.3),
]


@pytest.mark.parametrize("arch,bottleneck,routed,top_k,active,total", PUBLISHED)
def test_published_counts(arch, bottleneck, routed, top_k, active, total):
    from espnet2_avsr_llm.hub.resolve import arch as facts_of

    facts = facts_of(arch)
    h, layers = facts["hidden_size"], facts["num_hidden_layers"]
    with torch.device("meta"):
        llm = SimpleNamespace(model=bare_llm("llama", num_hidden_layers=layers).model, width=h, pinned=False)
        adapter = MoME(llm, [PASS], "mhsa", bottleneck, routed, top_k)
    expert = 2 * h * bottleneck + bottleneck + h
    assert adapter.active(PASS) == layers * ((1 + top_k) * expert + h * routed)
    assert sum(p.numel() for p in adapter.parameters()) == layers * ((1 + routed) * expert + h * routed)
    assert adapter.active(PASS) / 1e6 == pytest.approx(active, abs=0.005)
    assert sum(p.numel() for p in adapter.parameters()) / 1e6 == pytest.approx(total, abs=0.05)


def test_routers_of_each_scale(make_model):
    model = make_model(**settings(routers="scale"))
    shared = make_model(**settings())
    assert set(model.adapter.layers[0].routers) == {"scale_audio4_video2", "scale_audio16_video5"}
    assert model.adapter.active(PASS) == shared.adapter.active(PASS)
    count = lambda m: sum(p.numel() for p in m.adapter.parameters())
    assert count(model) - count(shared) == 2 * 6 * 16  # one more router of six experts in each of two layers
