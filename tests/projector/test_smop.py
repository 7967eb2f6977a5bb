"""The sparse mixture of projectors against its formula, the plain projector, and the released numbers (arXiv 2505.14336)."""

from pathlib import Path

import pytest
import torch

from espnet2_avsr_llm.pass_plan import Pass
from espnet2_avsr_llm.projector.mlp import MLPProjector
from espnet2_avsr_llm.projector.smop import ROUTINGS, SMoPProjector

AUDIO, VIDEO = {4: 6}, {2: 6}
AVSR = Pass("avsr", {"audio": 4, "video": 2})
NO_AUXILIARY = {"balance": 0.0, "z": 0.0}


def smop(routing="jejr", sizes=None, **options):
    torch.manual_seed(0)
    return SMoPProjector(sizes or {"audio": AUDIO, "video": VIDEO}, output_size=5, hidden_size=7, routing=routing, **options)


def features(audio=(9, 4), video=(5, 3), width=6):
    """Two rows of each stream, padded with zeros."""
    torch.manual_seed(1)
    made = {s: (torch.randn(2, max(n), width), torch.tensor(n)) for s, n in (("audio", audio), ("video", video))}
    for x, lengths in made.values():
        for row, n in zip(x, lengths):
            row[n:] = 0.0
    return made


def valid(streams):
    """Valid tokens of a stream, row after row."""
    x, lengths = streams
    return torch.cat([row[:n] for row, n in zip(x, lengths)])


def formula(module, stream, x):
    """Equation of section 2, every expert computed for every token."""
    routing, pool = module.router_of[stream], module.pool_of[stream]
    router = module.routers[routing]
    probs = (x @ router.weight.T).softmax(-1)
    kept = torch.zeros_like(probs).scatter(1, probs.topk(router.top_k).indices, 1.0) * probs
    if router.renormalise:
        kept = kept / kept.sum(-1, keepdim=True)
    return torch.einsum("te,etd->td", kept, torch.stack([expert(x) for expert in module.experts[pool]])), probs


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_formula(routing, layer_norm, renormalise):
    module = smop(routing, layer_norm=layer_norm, renormalise=renormalise)
    given = features()
    out, terms = module(given, AVSR.rates)
    probs = {}
    for stream, (y, lengths) in out.items():
        expected, probs[stream] = formula(module, stream, valid(given[stream]))
        torch.testing.assert_close(valid(out[stream]), expected)
        assert torch.equal(lengths, given[stream][1]) and y.shape == (2, given[stream][0].shape[1], 5)
    groups = [torch.cat(list(probs.values()))] if routing == "jejr" else list(probs.values())
    balance = sum(p.shape[1] * (torch.zeros_like(p).scatter(1, p.topk(2).indices, 1.0).mean(0) * p.mean(0)).sum() for p in groups)
    torch.testing.assert_close(terms["smop_balance"], 0.01 * balance)
    z = {s: (valid(given[s]) @ module.routers[module.router_of[s]].weight.T).logsumexp(-1) ** 2 for s in given}
    expected = torch.cat(list(z.values())).mean() if routing == "jejr" else sum(v.mean() for v in z.values())
    torch.testing.assert_close(terms["smop_z"], 0.001 * expected)


def test_streams_share_experts_and_routers_as_the_configuration_says():
    x = valid(features()["audio"])
    same = {"audio": (x[None], torch.tensor([len(x)])), "video": (x[None], torch.tensor([len(x)]))}
    out = {r: {s: y for s, (y, _) in smop(r)(same, AVSR.rates)[0].items()} for r in ROUTINGS}
    torch.testing.assert_close(out["jejr"]["audio"], out["jejr"]["video"])
    assert not torch.allclose(out["jedr"]["audio"], out["jedr"]["video"])
    names = {r: {n.rsplit(".", 1)[0] for n, _ in smop(r).named_parameters() if n.startswith("routers")} for r in ROUTINGS}
    assert names == {"jejr": {"routers.shared"}, "jedr": {"routers.audio", "routers.video"}, "dedr": {"routers.audio", "routers.video"}}
    assert set(smop("jedr").experts) == {"shared"} and set(smop("dedr").experts) == {"audio", "video"}


@pytest.mark.parametrize("routing", ROUTINGS)
def test_padding_is_neither_routed_nor_counted(routing):
    module, clean = smop(routing), features()
    dirty = {s: (x.clone(), n) for s, (x, n) in clean.items()}
    for x, lengths in dirty.values():
        for row, n in zip(x, lengths):
            row[n:] = 50.0
    seen = []
    for router in module.routers.values():
        router.register_forward_hook(lambda m, args, out: seen.append(len(args[0])))
    (a, terms), (b, other) = module(clean, AVSR.rates), module(dirty, AVSR.rates)
    assert all(torch.equal(a[s][0], b[s][0]) for s in a) and terms == other
    assert sum(seen) == 2 * (9 + 4 + 5 + 3)


def test_a_stream_without_tokens():
    module = smop("dedr")
    given = features()
    given["video"] = (given["video"][0][:, :0], torch.zeros(2, dtype=torch.long))
    out, terms = module(given, AVSR.rates)
    assert out["video"][0].shape == (2, 0, 5)
    assert all(torch.isfinite(t) for t in terms.values())
    out, _ = module({"audio": given["audio"]}, {"audio": 4})  # a pass of one stream
    assert set(out) == {"audio"}


@pytest.mark.parametrize("routing", ROUTINGS)
def test_one_expert_is_the_plain_projector(make_model, make_batch, routing):
    """Same loss and gradients, with one pool for each stream (dedr) or one stream."""
    task = "avsr" if routing == "dedr" else "asr"
    plain = make_model(task)
    options = {"hidden_size": 24, "routing": routing, "experts": 1, "top_k": 1, **NO_AUXILIARY}
    mixed = make_model(task, projector="smop", projector_conf=options)
    names = {}
    for name, p in plain.named_parameters():
        if name.startswith("projector."):
            _, _, stream, layer, kind = name.split(".")
            names[name] = f"projector.experts.{stream if routing == 'dedr' else 'shared'}.0.{layer}.{kind}"
    own, other = dict(plain.named_parameters()), dict(mixed.named_parameters())
    with torch.no_grad():
        for name, p in own.items():
            other[names.get(name, name)].copy_(p)
    batch = make_batch((16000, 25 if task == "avsr" else None, 5), (8000, 13 if task == "avsr" else None, 2))
    losses = [model(**batch)[0] for model in (plain, mixed)]
    torch.testing.assert_close(losses[1], losses[0], atol=1e-6, rtol=1e-6)
    for loss in losses:
        loss.backward()
    for name, p in own.items():
        if p.requires_grad:
            torch.testing.assert_close(other[names.get(name, name)].grad, p.grad, atol=1e-6, rtol=1e-5)


def test_gradient_reaches_the_chosen_experts_and_the_router_only():
    module = smop(experts=6, top_k=2, sizes={"audio": AUDIO})
    x = torch.randn(1, 1, 6)
    out, _ = module({"audio": (x, torch.tensor([1]))}, {"audio": 4})
    out["audio"][0].square().sum().backward()
    chosen = set(module.routers["shared"](x[0]).choice[0].tolist())
    reached = {e for e, expert in enumerate(module.experts["shared"]) if expert[0].weight.grad.abs().max() > 0}
    assert reached == chosen and len(chosen) == 2
    assert module.routers["shared"].weight.grad.abs().max() > 0


def test_a_shared_pool_widens_the_narrow_stream():
    module = smop("jedr", sizes={"audio": {4: 4}, "video": {2: 6}})
    assert module.widen["audio"].weight.shape == (6, 4) and set(module.widen) == {"audio"}
    given = {"audio": (torch.randn(1, 3, 4), torch.tensor([3])), "video": (torch.randn(1, 2, 6), torch.tensor([2]))}
    out, _ = module(given, AVSR.rates)
    torch.testing.assert_close(out["audio"][0][0], formula(module, "audio", module.widen["audio"](given["audio"][0][0]))[0])
    assert not smop("dedr", sizes={"audio": {4: 4}, "video": {2: 6}}).widen


def test_numbers_per_stream():
    module = smop("dedr", experts={"audio": 2, "video": 5}, top_k={"audio": 1, "video": 3})
    assert [len(module.experts[s]) for s in ("audio", "video")] == [2, 5]
    assert [module.routers[s].top_k for s in ("audio", "video")] == [1, 3]
    assert [smop("jedr", top_k={"audio": 1, "video": 3}).routers[s].top_k for s in ("audio", "video")] == [1, 3]


@pytest.mark.parametrize(
    "options,message",
    [
        ({"routing": "jrje"}, "unknown routing 'jrje'; choose from jejr, jedr, dedr"),
        ({"experts": {"audio": 2, "video": 5}}, "smop experts: .*each of shared"),
        ({"routing": "jedr", "top_k": {"audio": 2}}, "smop top_k: .*each of audio, video"),
        ({"experts": 1}, r"top_k is from 1 to the number of experts \(1\), not 2"),
        ({"sizes": {"audio": {4: 8, 16: 32}}}, "audio.*widths differ"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        smop(**options)


def test_released_joint_model_has_25_202_688_parameters():
    """1B, pooled, LayerNorm: four experts of 6,299,648 and a router of 4 x 1024 (specification 3.2)."""
    with torch.device("meta"):
        module = SMoPProjector({"audio": {4: 1024}, "video": {2: 1024}}, 2048, layer_norm=True)
    assert sum(p.numel() for p in module.parameters()) == 25_202_688 == 4 * 6_299_648 + 4 * 1024
    shapes = {n.removeprefix("experts.shared."): tuple(p.shape) for n, p in module.named_parameters()}
    assert shapes["routers.shared.weight"] == (4, 1024)
    assert [shapes[f"3.{name}"] for name in ("0.weight", "2.weight", "3.bias")] == [(2048, 1024), (2048, 2048), (2048,)]


# section 3.2 of the specification, stack 3, no LayerNorm: millions, by LLM width and Whisper width
TOTAL = {2048: (51.2, 53.5, 58.2, 63.0), 3072: (63.7, 66.1, 70.8, 75.5), 4096: (76.3, 78.7, 83.4, 88.1)}
ACTIVE = {2048: (34.1, 35.7, 38.8, 42.0), 3072: (42.5, 44.1, 47.2, 50.4), 4096: (50.9, 52.5, 55.6, 58.7)}


@pytest.mark.parametrize("column,whisper", list(enumerate((384, 512, 768, 1024))))
@pytest.mark.parametrize("llm", TOTAL)
def test_disjoint_counts_of_the_papers_sizes(llm, column, whisper):
    with torch.device("meta"):
        module = SMoPProjector({"audio": {3: 3 * whisper}, "video": {3: 3072}}, llm, routing="dedr", experts=3)
    total = sum(p.numel() for p in module.parameters())
    assert round(total / 1e6, 1) == TOTAL[llm][column]
    assert round(module.active(Pass("avsr", {"audio": 3, "video": 3})) / 1e6, 1) == ACTIVE[llm][column]
    expert = {s: (3 * w + 1) * 2048 + 2049 * llm for s, w in (("audio", whisper), ("video", 1024))}
    assert total == 3 * sum(expert.values()) + 9 * (whisper + 1024)
    assert module.active(Pass("asr", {"audio": 3})) == 2 * expert["audio"]


def test_plain_projector_of_equal_active_size():
    """What Llama-SMoP is compared with: conf/train/llama_smop_plain.yaml has one output bias less for each stream."""
    import yaml

    conf = Path(__file__).resolve().parents[2] / "conf" / "train"
    dedr, plain = (yaml.safe_load((conf / f"llama_smop_{name}.yaml").read_text())["projector_conf"] for name in ("dedr", "plain"))
    sizes = {"audio": {3: 1536}, "video": {3: 3072}}
    with torch.device("meta"):
        mixed, single = SMoPProjector(sizes, 2048, **dedr), MLPProjector(sizes, 2048, **plain)
    pass_ = Pass("avsr", {"audio": 3, "video": 3})
    assert mixed.active(pass_) - single.active(pass_) == 2 * 2048


def test_a_token_of_each_stream_uses_experts_of_its_own():
    module = smop("jejr", experts=4, top_k=1)
    expert = (6 + 1) * 7 + (7 + 1) * 5
    assert module.active(Pass("asr", {"audio": 4})) == expert
    assert module.active(AVSR) == 2 * expert
