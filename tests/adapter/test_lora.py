"""LoRA: its formula, and several passes in one step with and without gradient checkpointing (design section 1)."""

import math

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from espnet2_avsr_llm.build import build

PASSES = [
    {"task": "asr", "rates": {"audio": 4}, "weight": 0.5},
    {"task": "avsr", "rates": {"audio": 16, "video": 5}, "weight": 2.0},
    {"task": "vsr", "rates": {"video": 2}},
]


@pytest.fixture(params=[False, True], ids=["kept", "checkpointed"])
def checkpointing(request):
    return request.param


def multi_pass(make_model, sets, checkpointing, passes=PASSES, dtype="float32"):
    llm_conf = {"gradient_checkpointing": checkpointing, "dtype": dtype}
    return make_model(compression="avg_pool", passes=passes, adapter_conf={"sets": list(sets)}, llm_conf=llm_conf)


def gradients(model, batch, passes):
    """Gradients of one step over ``passes``."""
    model.zero_grad()
    model.plan._passes = passes
    model(**batch)[0].backward()
    return {n: p.grad.clone() if p.grad is not None else torch.zeros_like(p) for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("sets", [("shared",), ("task",), ("scale",), ("shared", "task", "scale")], ids="+".join)
def test_a_step_of_several_passes_is_the_sum_of_single_steps(make_model, make_batch, sets, checkpointing):
    model = multi_pass(make_model, sets, checkpointing)
    batch = make_batch((16000, 25, 5), (8000, 13, 2))
    passes = model.plan.all_passes()
    together = gradients(model, batch, passes)
    single = [gradients(model, batch, [p]) for p in passes]
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, sum(s[name] for s in single), atol=1e-6, rtol=1e-5)
        assert gradient.abs().max() > 1e-4, f"{name} gets no gradient"
    # each single pass reaches its own sets and no other
    for p, s in zip(passes, single):
        reached = {n.split(".")[-2] for n, g in s.items() if "lora_" in n and g.abs().max() > 0}
        assert reached == set(model.adapter.names(p))


def test_checkpointing_recomputes_and_changes_no_gradient(make_model, make_batch):
    sets, batch = ("shared", "task", "scale"), make_batch((16000, 25, 5), (8000, 13, 2))
    found, calls = {}, {}
    for checkpointing in (False, True):
        model = multi_pass(make_model, sets, checkpointing)
        count = []
        model.llm.model.model.layers[0].self_attn.q_proj.register_forward_hook(lambda *_, count=count: count.append(1))
        found[checkpointing] = gradients(model, batch, model.plan.all_passes())
        calls[checkpointing] = len(count)
    assert calls == {False: len(PASSES), True: 2 * len(PASSES)}
    for name, gradient in found[False].items():
        torch.testing.assert_close(found[True][name], gradient, atol=1e-6, rtol=1e-5)


def test_the_recompute_uses_the_sets_of_its_own_pass(make_model, make_batch):
    model = multi_pass(make_model, ("shared", "task"), True)
    layer = model.llm.model.model.layers[0].self_attn.q_proj
    used = []
    layer.register_forward_hook(lambda m, *_: used.append(tuple(m.active_adapters)))
    gradients(model, make_batch((16000, 25, 5)), model.plan.all_passes())
    forward = [("shared", f"task_{p['task']}") for p in PASSES]
    assert used == forward + forward[::-1]


def test_requires_grad_is_never_touched(make_model, make_batch, monkeypatch, checkpointing):
    model = multi_pass(make_model, ("shared", "task", "scale"), checkpointing)
    before = {n: p.requires_grad for n, p in model.named_parameters()}
    monkeypatch.setattr(torch.nn.Parameter, "requires_grad_", lambda *_: pytest.fail("requires_grad_ was called"), raising=False)
    for p in model.plan.all_passes():
        with model.use(p):
            assert {n: q.requires_grad for n, q in model.named_parameters()} == before
    gradients(model, make_batch((16000, 25, 5)), model.plan.all_passes())
    assert {n: p.requires_grad for n, p in model.named_parameters()} == before
    assert all(value for name, value in before.items() if "lora_" in name)


def test_the_sets_of_outside_come_back(make_model):
    model = multi_pass(make_model, ("task",), False)
    first, second, _ = model.plan.all_passes()
    layers = [m for m in model.llm.model.modules() if isinstance(m, BaseTunerLayer)]
    with model.use(first):
        with pytest.raises(KeyError), model.use(second):
            raise KeyError
        assert all(layer.active_adapters == ["task_asr"] for layer in layers)


@pytest.mark.parametrize("scale", [0.125, 2.0])
def test_formula(make_model, scale):
    """W x + s B A x on a layer, summed over the sets of the pass."""
    model = make_model(
        compression="avg_pool", passes=PASSES, adapter_conf={"sets": ["shared", "task"], "rank": 3, "scale": scale, "target_modules": ["q_proj", "v_proj"]}
    )
    x = torch.randn(2, 5, 16)
    for p in model.plan.all_passes():
        for layer in model.llm.model.model.layers:
            for linear in (layer.self_attn.q_proj, layer.self_attn.v_proj):
                expected = x @ linear.base_layer.weight.T
                for name in ("shared", f"task_{p.task}"):
                    a, b = linear.lora_A[name].weight, linear.lora_B[name].weight
                    assert a.shape[0] == 3
                    expected = expected + scale * x @ a.T @ b.T
                with model.use(p):
                    torch.testing.assert_close(linear(x), expected)
            assert not isinstance(layer.self_attn.k_proj, BaseTunerLayer)


PAIRS = [{"task": "avsr", "rates": {"audio": a, "video": v}} for a in (4, 16) for v in (2, 5)]


def logits(model, batch):
    """Logits of every pass."""
    with torch.no_grad():
        features = model.encode(model.inputs(batch))
        return [model.predict(features, p, (batch["text"], batch["text_lengths"]))[0] for p in model.plan.all_passes()]


@pytest.mark.parametrize("sets", [("scale",), ("shared", "scale")], ids=["SS", "MSS"])
def test_a_scale_reads_no_other_scales_adapter(make_model, make_batch, sets):
    """Bit by bit: changing the adapter of one rate pair changes the logits of that pair alone."""
    model, batch = multi_pass(make_model, sets, False, PAIRS), make_batch((16000, 25, 5), (8000, 13, 2))
    before = logits(model, batch)
    for changed, pass_ in enumerate(model.plan.all_passes()):
        name = model.adapter.names(pass_)[-1]
        with torch.no_grad():
            for n, p in model.named_parameters():
                if n.split(".")[-2] == name:
                    p.add_(0.1)
        after = logits(model, batch)
        assert [torch.equal(a, b) for a, b in zip(after, before)] == [i != changed for i in range(4)]
        before = after


def test_mss_without_its_specific_part_is_ms(make_model, make_batch):
    mss, ms = (multi_pass(make_model, sets, False, PAIRS) for sets in (("shared", "scale"), ("shared",)))
    batch = make_batch((16000, 25, 5), (8000, 13, 2))
    ms.load_state_dict({n: t for n, t in mss.state_dict().items() if ".scale_" not in n})
    assert not any(torch.equal(a, b) for a, b in zip(logits(mss, batch), logits(ms, batch)))
    with torch.no_grad():
        for n, p in mss.named_parameters():
            if "lora_B.scale_" in n:
                p.zero_()
    assert all(torch.equal(a, b) for a, b in zip(logits(mss, batch), logits(ms, batch)))


@pytest.mark.parametrize("dtype,atol", [("float32", 1e-4), ("bfloat16", 0.15)])
@pytest.mark.parametrize("sets", [("shared",), ("task", "scale"), ("shared", "scale")], ids="+".join)
def test_merging_changes_no_number_and_leaves_no_trace(make_model, make_batch, sets, dtype, atol):
    model, batch = multi_pass(make_model, sets, False, dtype=dtype), make_batch((16000, 25, 5), (8000, 13, 2))
    before, weights = logits(model, batch), {n: t.clone() for n, t in model.llm.model.state_dict().items()}
    runs = []
    model.llm.model.model.layers[0].self_attn.q_proj.lora_A["shared" if "shared" in sets else "task_asr"].register_forward_hook(lambda *_: runs.append(1))
    with torch.no_grad():
        features = model.encode(model.inputs(batch))
        for p, expected in zip(model.plan.all_passes(), before):
            with model.adapter.merged(p):
                found, *_ = model.predict(features, p, (batch["text"], batch["text_lengths"]))
            torch.testing.assert_close(found, expected, atol=atol, rtol=0)
            assert not runs, "the merged adapter still costs time"
    assert all(torch.equal(t, weights[n]) for n, t in model.llm.model.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(logits(model, batch), before))


def test_another_pass_than_the_merged_one_is_refused(make_model):
    model = multi_pass(make_model, ("task",), False)
    first, second, _ = model.plan.all_passes()
    with pytest.raises(ValueError, match=r"\['task_asr'\] are merged into the LLM, but this pass needs \['task_avsr'\]"):
        with model.adapter.merged(first), model.use(second):
            pass
    with model.use(second):
        pass


def test_names_of_sets(make_model):
    model = multi_pass(make_model, ("shared", "task", "scale"), False)
    assert [model.adapter.names(p) for p in model.plan.all_passes()] == [
        ["shared", "task_asr", "scale_audio4"],
        ["shared", "task_avsr", "scale_audio16_video5"],
        ["shared", "task_vsr", "scale_video2"],
    ]


@pytest.mark.parametrize("sets", [["tasks"], []])
def test_unknown_or_no_set_is_refused(make_model, sets):
    with pytest.raises(ValueError, match="choose from shared, task, scale"):
        make_model(adapter_conf={"sets": sets})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("options, zero, drawn", [({}, "lora_B", "lora_A"), ({"zero": "up"}, "lora_B", "lora_A"), ({"zero": "down"}, "lora_A", "lora_B")])
def test_starts_as_the_llm_alone(tiny_config, options, zero, drawn, dtype):
    """One matrix of each set is zero; the other is Kaiming-uniform (a = √5), so from a range of one over the root of its inputs."""
    torch.manual_seed(0)
    encoder = {"lora": {"rank": 2, "scale": 2.0, **options}}
    model = build(tiny_config(llm_conf={"dtype": dtype}, adapter_conf={"sets": ["shared", "task"], **options}, video_frontend_conf=encoder))
    found = {n: p for n, p in model.named_parameters() if "lora_" in n}
    assert {n.split(".")[-2] for n in found} == {"shared", "task_avsr", "default"}
    assert all(p.dtype == torch.float32 and p.any() == (drawn in n) for n, p in found.items())
    ranges = torch.cat([p.flatten() * p.shape[1] ** 0.5 for n, p in found.items() if drawn in n])
    assert 0.9 < ranges.abs().max() < 1.01
    assert math.isclose(next(m for m in model.llm.model.modules() if isinstance(m, BaseTunerLayer)).scaling["shared"], 1.0)


def test_an_unknown_start_is_refused(make_model):
    with pytest.raises(ValueError, match="lora zero: 'both'; choose from up, down"):
        make_model(adapter_conf={"zero": "both"})
