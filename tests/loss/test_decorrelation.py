"""The decorrelation loss in closed form, against the released program's hidden states, and inside a model."""

import math
import os
from pathlib import Path

import pytest
import torch

from espnet2_avsr_llm.build import build
from espnet2_avsr_llm.loss import LOSSES
from espnet2_avsr_llm.loss.decorrelation import Decorrelation
from espnet2_avsr_llm.sequence import Role

PAD, BOS, AUDIO, PROMPT, TEXT = Role.PAD, Role.BOS, Role.AUDIO, Role.PROMPT, Role.TEXT
DEEP = {"num_hidden_layers": 4}


def states(layers, *rows):
    """The same rows in every layer."""
    return [torch.tensor(rows, dtype=torch.float32)] * (layers + 1)


def turned(degrees, size=2.0):
    return [size * math.cos(math.radians(degrees)), size * math.sin(math.radians(degrees))]


def test_closed_forms():
    roles = torch.tensor([[BOS, AUDIO, AUDIO, PROMPT]])
    same, orthogonal = states(4, [turned(0, n) for n in (1, 2, 3, 4)]), states(4, [turned(0), turned(90), turned(-90), turned(90)])
    assert Decorrelation(7.0)(same, roles) == pytest.approx(7.0)
    assert Decorrelation()(orthogonal, roles) == pytest.approx(0.0, abs=1e-6)
    mixed = states(4, [turned(10), turned(70), turned(190), turned(55)])  # 60, 180 and 45 degrees from BOS
    assert Decorrelation(1.0)(mixed, roles) == pytest.approx((0.25 + 1.0 + 0.5) / 3)


@pytest.mark.parametrize("layers, read", [("paper", {2, 3}), ("released", {1, 2, 3})])
def test_layers(layers, read):
    """Of L = 4 layers; layer l alone is at 0 degrees, the others at 90."""
    roles = torch.tensor([[BOS, AUDIO]])
    for layer in range(5):
        hidden = [torch.tensor([[turned(0), turned(0 if at == layer else 90)]]) for at in range(5)]
        assert Decorrelation(1.0, layers)(hidden, roles) == pytest.approx((layer in read) / len(read), abs=1e-6)


@pytest.mark.parametrize("tokens, expected", [("prefix", 0.25), ("all", (3 * 0.25 + 1) / 4)])
def test_token_sets(tokens, expected):
    """Three tokens of the prefix at 60 degrees; one of the transcript at 0."""
    roles = torch.tensor([[BOS, AUDIO, AUDIO, PROMPT, TEXT]])
    hidden = states(3, [turned(degrees) for degrees in (0, 60, 60, 60, 0)])
    assert Decorrelation(1.0, tokens=tokens)(hidden, roles) == pytest.approx(expected)


def test_padding_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(5, n, 8, generator=generator) for n in (6, 3)]  # five hidden states of two utterances
    roles = [torch.tensor([BOS] + [AUDIO] * (n - 3) + [PROMPT, TEXT]) for n in (6, 3)]
    loss = Decorrelation()
    alone = [loss(list(h[:, None]), r[None]) for h, r in zip(rows, roles)]
    for filling in (0.0, 3.0, float("nan")):
        padded = torch.cat([torch.full((5, 3, 8), filling), rows[1]], 1).requires_grad_()
        both = loss(list(torch.stack([rows[0], padded], 1)), torch.stack([roles[0], torch.cat([torch.tensor([PAD] * 3), roles[1]])]))
        torch.testing.assert_close(both, sum(alone) / 2)
        both.backward()
        assert padded.grad[:, :3].eq(0).all() and padded.grad[2:4, 3:].abs().sum() > 0


def test_gradient_flows_into_bos_and_the_others():
    hidden = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    Decorrelation()([hidden] * 4, torch.tensor([[BOS, AUDIO, PROMPT, TEXT]])).backward()
    assert (hidden.grad.abs().sum(-1) > 0).tolist() == [[True, True, True, False]]


def test_without_bos_the_first_token_takes_its_place():
    hidden = states(3, [turned(0), turned(60), turned(60)])
    assert Decorrelation(1.0)(hidden, torch.tensor([[Role.DELIMITER, AUDIO, PROMPT]])) == pytest.approx(0.25)


def test_bfloat16_states_are_read_in_float32():
    hidden = [torch.randn(1, 40, 64, generator=torch.Generator().manual_seed(0)).bfloat16()] * 4
    roles = torch.tensor([[BOS] + [AUDIO] * 39])
    value = Decorrelation(1.0)(hidden, roles)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, Decorrelation(1.0)([h.double().float() for h in hidden], roles), rtol=1e-6, atol=0)


def test_wrong_options_and_too_few_layers():
    with pytest.raises(ValueError, match="layers: 'papr'; choose from paper, released"):
        Decorrelation(layers="papr")
    with pytest.raises(ValueError, match="tokens: 'text'; choose from prefix, all"):
        Decorrelation(tokens="text")
    with pytest.raises(ValueError, match="reads layers 2 to L-1, but this LLM has L = 2"):
        Decorrelation()(states(2, [turned(0), turned(60)]), torch.tensor([[BOS, AUDIO]]))


@pytest.fixture(scope="module")
def golden():
    folder = os.environ.get("AVSR_GOLDEN")
    if not folder:
        pytest.skip("AVSR_GOLDEN, the folder of the official program's reference vectors, is not set")
    return torch.load(Path(folder) / "llama_avsr_avsr_pool_a4v2_ln_sink_lora.pt", weights_only=True)


def test_the_released_programs_value(golden):
    """Its term over both rows, whose padding it counts; and row s0, which has none, from the formula."""
    prefix, n = golden["ignore_count"], golden["labels"].shape[1]
    roles = torch.tensor([[BOS] + [AUDIO] * prefix + [TEXT] * (n - prefix - 1)])
    loss, hidden = Decorrelation(layers="released"), golden["hidden_states"]
    torch.testing.assert_close(loss(hidden, roles.repeat(2, 1)), golden["decor_loss"], rtol=1e-5, atol=0)
    terms = []
    for h in hidden[1:-1]:
        bos, others = h[0, 0].double(), h[0, 1 : prefix + 1].double()
        terms.append(((others @ bos) / (others.norm(dim=1) * bos.norm())).square().mean())
    expected = 1e4 * sum(terms) / len(terms)
    torch.testing.assert_close(loss([h[:1] for h in hidden], roles).double(), expected, rtol=1e-4, atol=0)


# ---- in a model --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deep(make_source, tmp_path_factory):
    return make_source["llama"](tmp_path_factory.mktemp("deep") / "llama", **DEEP)


@pytest.fixture
def make(make_model, deep):
    def build_model(checkpointing=False, **confs):
        return make_model(llm_conf={"source": deep, "gradient_checkpointing": checkpointing}, **confs)

    return build_model


LOSS = {"losses": ["decorrelation"], "losses_conf": {"decorrelation": {"weight": 10.0}}}


def gradients(model, batch):
    loss, stats, _ = model(**batch)
    loss.backward()
    return loss.detach(), stats, {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def test_term_of_a_batch_is_that_of_its_utterances(make, make_batch):
    rows = [(16000, 25, 5), (9600, 13, 1), (0, 13, 4)]
    model = make(**LOSS).eval()
    with torch.no_grad():
        alone = [model(**make_batch(row))[1]["decorrelation_avsr_audio4_video2"] for row in rows]
        stats = model(**make_batch(*rows))[1]
    torch.testing.assert_close(stats["decorrelation_avsr_audio4_video2"], sum(alone) / 3, atol=1e-4, rtol=1e-4)
    assert stats["loss"] == pytest.approx(float(stats["loss_avsr_audio4_video2"] + stats["decorrelation_avsr_audio4_video2"]), rel=1e-6)
    assert min(alone) > 0


@pytest.mark.parametrize("adapter", ["lora", "mome"])
def test_with_elastic_rates_and_experts(make, make_batch, adapter):
    """A term for each pass, of what the next layer reads: what experts beside a layer add to its output included."""
    rates = {"task": "avsr", "rates": {"audio": [4, 8], "video": [2, 5]}}
    parts = {"adapter": "mome", "adapter_conf": {"placement": "layer", "bottleneck": 3, "routed": 4, "top_k": 2}} if adapter == "mome" else {}
    model, batch = make(compression="avg_pool", plan=("all_rates", rates), **parts, **LOSS), make_batch((16000, 25, 5))
    read: list[list[torch.Tensor]] = [[] for _ in model.llm.layers]
    for seen, layer in zip(read, model.llm.layers):
        layer.register_forward_pre_hook(lambda m, args, kwargs, seen=seen: seen.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True)
    loss, stats, _ = model(**batch)
    loss.backward()
    features, text = model.encode(model.inputs(batch)), (batch["text"], batch["text_lengths"])
    terms = [stats[f"decorrelation_{p.name}"] for p in model.plan.passes()]
    assert len(terms) == 4 == len(set(map(float, terms)))
    for n, (pass_, term) in enumerate(zip(model.plan.passes(), terms)):
        roles = model.prepare(features, pass_, text)[0].roles
        hidden = [seen[n] for seen in read] + [None]  # the inputs of layers 1 to 4 are the embeddings and the outputs of layers 1 to 3
        torch.testing.assert_close(term.squeeze(), Decorrelation(10.0)(hidden, roles).detach())
    totals = [stats[f"{key}_{p.name}"] for p in model.plan.passes() for key in ("loss", "decorrelation", "mome_balance") if f"{key}_{p.name}" in stats]
    torch.testing.assert_close(stats["loss"], sum(totals) / 4)
    assert len(totals) == 4 * (2 + (adapter == "mome"))


def test_no_loss_no_term_and_no_hidden_states(make, make_batch):
    model, asked = make(), []
    model.llm.model.register_forward_pre_hook(lambda m, args, kwargs: asked.append(kwargs["output_hidden_states"]), with_kwargs=True)
    _, stats, _ = model(**make_batch((16000, 25, 5)))
    assert set(stats) == {"loss", "acc"} and asked == [False]


def test_checkpointing_gives_the_same_gradients(make, make_batch):
    """And the term moves LoRA of layers below, so its gradient does not stop at the recorded states."""
    batch = make_batch((16000, 25, 5), (9600, 13, 1))
    plain, recomputed, without = (gradients(make(c, **confs), batch) for c, confs in ((False, LOSS), (True, LOSS), (False, {})))
    torch.testing.assert_close(plain[0], recomputed[0])
    for name, grad in plain[2].items():
        torch.testing.assert_close(grad, recomputed[2][name], msg=name)
        if "layers.3." not in name:  # the last layer's output is not read
            assert not torch.allclose(grad, without[2][name], atol=1e-6), name


def test_a_step_lowers_the_cosines(make, make_batch):
    model, batch = make(**LOSS), make_batch((16000, 25, 5), (9600, 13, 1))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, terms = torch.optim.SGD(trained, lr=1e-3), []
    for _ in range(4):
        _, stats, _ = model(**batch)
        terms.append(stats["decorrelation_avsr_audio4_video2"])
        optimizer.zero_grad()
        loss = model.run_pass(model.encode(model.inputs(batch)), model.plan.passes()[0], (batch["text"], batch["text_lengths"]))
        loss.terms["decorrelation"].backward()
        optimizer.step()
    assert terms[-1] < terms[0]


def test_configuration(tiny_config):
    with pytest.raises(ValueError, match="Unknown 'decorelation'.*did you mean 'decorrelation'"):
        build(tiny_config() | {"losses": ["decorelation"]})
    with pytest.raises(ValueError, match="unknown loss 'decorelation'.*did you mean 'decorrelation'"):
        build(tiny_config() | {"losses_conf": {"decorelation": {}}})
    with pytest.raises(ValueError, match="no option 'wieght'.*did you mean 'weight'"):
        build(tiny_config() | {"losses": ["decorrelation"], "losses_conf": {"decorrelation": {"wieght": 1}}})
    assert list(build(tiny_config() | {"losses": ["decorrelation"]}).losses) == list(LOSSES) == ["decorrelation"]


def test_options_of_training():
    from espnet2_avsr_llm.task import AVSRLLMTask

    args = ["--output_dir", "x", "--losses", "decorrelation", "--losses_conf", "decorrelation.weight=10"]
    parsed = AVSRLLMTask.get_parser().parse_args(args)
    assert parsed.losses == ["decorrelation"] and parsed.losses_conf == {"decorrelation": {"weight": 10}}
    assert AVSRLLMTask.get_parser().parse_args(args[:2]).losses == []
