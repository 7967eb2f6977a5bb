"""What the routers chose: shares, dead experts and agreement by hand, and from routers whose choice is known."""

import json

import numpy as np
import pytest
import torch
import yaml

from espnet2_avsr_llm import checkpoint
from espnet2_avsr_llm.analysis.experts import Routed, Tally, agreement, observe
from espnet2_avsr_llm.bin import experts as program
from espnet2_avsr_llm.pass_plan import Pass
from espnet2_avsr_llm.sequence import Role

FINE, COARSE = Pass("avsr", {"audio": 4, "video": 2}), Pass("avsr", {"audio": 16, "video": 5})
PASSES = [{"task": p.task, "rates": dict(p.rates)} for p in (FINE, COARSE)]
MOME = {"adapter": "mome", "adapter_conf": {"bottleneck": 3, "routed": 6, "top_k": 2}}


def text_of(batch):
    return batch["text"], batch["text_lengths"]


def seen(model, batch, pass_=FINE):
    return observe(model, model.encode(model.inputs(batch)), pass_, text_of(batch))


def prefer(router, experts):
    """Make a router choose these experts, whatever the token: their logits rise with the input's own component."""
    with torch.no_grad():
        router.weight.zero_()
    router.register_forward_hook(lambda m, args, out: out._replace(choice=torch.tensor(experts).expand(*out.choice.shape)))


def test_every_token_of_every_layer_is_seen_with_its_role(make_model, make_batch):
    model = make_model(compression="avg_pool", passes=PASSES, **MOME).eval()
    found = seen(model, make_batch((16000, 25, 5)))
    assert list(found) == ["layer 1", "layer 2"]
    roles = found["layer 1"].roles.tolist()
    assert [roles.count(r) for r in (Role.PAD, Role.AUDIO, Role.VIDEO, Role.TEXT)] == [0, 12, 12, 6]
    assert found["layer 1"].choice.shape == (len(roles), 2) and found["layer 1"].probs.shape == (len(roles), 6)
    np.testing.assert_allclose(found["layer 2"].probs.sum(1), 1.0, rtol=1e-5)
    # and nothing stays behind
    assert not any(r._forward_hooks for layer in model.adapter.layers for r in layer.routers.values())


@pytest.mark.parametrize("routing", ["jejr", "jedr", "dedr"])
def test_tokens_of_a_mixture_of_projectors(make_model, make_batch, routing):
    model = make_model(compression="avg_pool", passes=PASSES, projector="smop", projector_conf={"routing": routing}).eval()
    if routing != "jejr":
        prefer(model.projector.routers["audio"], [3, 0])
        prefer(model.projector.routers["video"], [1, 2])
    found = seen(model, make_batch((16000, 25, 5)))
    assert list(found) == (["projector audio", "projector video"] if routing == "dedr" else ["projector"])
    for pool, of in found.items():
        for stream, experts in (("audio", [3, 0]), ("video", [1, 2])):
            expected = 0 if routing == "dedr" and stream not in pool else 12
            assert of.of(stream).choice.shape == (expected, 2)
            assert routing == "jejr" or (of.of(stream).choice == experts).all()


SMOP = {"projector": "smop", "projector_conf": {"routing": "dedr", "experts": 3}}


@pytest.mark.parametrize("kind,pool", [(MOME, "layer 2"), (SMOP, "projector audiovisual")], ids=["mome", "smop"])
def test_tokens_of_a_fused_stream(make_model, make_batch, kind, pool):
    """AV-HuBERT's joint stream."""
    pass_ = Pass("avsr", {"audiovisual": 2})
    fused = {"audio_frontend": None, "video_frontend": "avhubert", "video_frontend_conf": {"streams": ["audiovisual"]}}
    model = make_model(compression="avg_pool", passes=[{"task": "avsr", "rates": dict(pass_.rates)}], **fused, **kind).eval()
    tally = Tally()
    tally.add([pass_], [seen(model, make_batch((16000, 25, 5), filterbanks=True), pass_)])
    numbers = tally.numbers()
    assert [row["tokens"] for row in numbers["shares"] if (row["pool"], row["modality"]) == (pool, "audiovisual")] == [12]
    assert pool in numbers["pools"]


def test_a_model_without_experts_is_refused(make_model, make_batch):
    with pytest.raises(ValueError, match="no experts in this model: its projector is MLPProjector, its adapter LoRA"):
        seen(make_model(), make_batch((16000, 25, 5)))


def routed(roles, choice, experts=4):
    probs = np.full((len(roles), experts), 1 / experts)
    return {"pool": Routed(np.array([Role[r] for r in roles]), np.array(choice), probs)}


def test_shares_and_dead_experts_by_hand():
    tally = Tally()
    tally.add([FINE], [routed(["BOS", "AUDIO", "AUDIO", "TEXT"], [[0, 1], [0, 2], [2, 0], [0, 2]])])
    tally.add([FINE], [routed(["AUDIO", "AUDIO"], [[2, 0], [2, 0]])])
    numbers = tally.numbers()
    audio, text, prompt = numbers["shares"]
    assert (audio["modality"], audio["tokens"], audio["first"], audio["second"]) == ("audio", 4, [0.25, 0, 0.75, 0], [0.75, 0, 0.25, 0])
    assert (text["modality"], text["first"]) == ("text", [1, 0, 0, 0]) and (prompt["modality"], prompt["second"]) == ("prompt", [0, 1, 0, 0])
    assert audio["entropy"] == pytest.approx(1.0)
    # of 12 choices, 6, 1, 5 and 0: relative to 3 each 2, 1/3, 5/3 and 0
    assert numbers["pools"]["pool"] == {"usage": [0.5, 1 / 12, 5 / 12, 0.0], "least": 0.0, "dead": [3]}
    assert numbers["agreement"] == []


def test_entropy_of_a_sure_router_is_zero():
    tally = Tally()
    tally.add([FINE], [{"pool": Routed(np.array([Role.AUDIO]), np.array([[0]]), np.array([[1.0, 0.0]]))}])
    assert tally.numbers()["shares"][0]["entropy"] == pytest.approx(0.0) and tally.numbers()["shares"][0]["second"] == [0.0, 0.0]


def test_agreement_compares_tokens_of_the_same_time():
    fine = np.array([[0, 1], [0, 1], [2, 3], [2, 3]])  # 4 frames each: 0-3, 4-7, 8-11, 12-15
    coarse = np.array([[1, 0], [2, 4]])  # 8 frames each: both experts of the first half in common, one of the second
    assert agreement(fine, coarse, 4, 8) == agreement(coarse, fine, 8, 4) == (0.75, 0.0)
    assert agreement(fine, fine, 4, 4) == (1.0, 0.0)
    assert agreement(fine, fine[:3], 4, 5)[0] == 1.0  # middles 2.5, 7.5 and 12.5 are in tokens 0, 1 and 3
    assert agreement(fine, coarse[:0], 4, 8) is None


def test_scales_of_one_router_choice_agree_wholly(make_model, make_batch):
    model = make_model(compression="avg_pool", passes=PASSES, **MOME).eval()
    for layer in model.adapter.layers:
        prefer(layer.routers["shared"], [5, 1])
    batch, tally = make_batch((16000, 25, 5)), Tally()
    tally.add([FINE, COARSE], [seen(model, batch, p) for p in (FINE, COARSE)])
    numbers = tally.numbers()
    assert {(row["modality"], row["agreement"]) for row in numbers["agreement"]} == {(m, 1.0) for m in ("audio", "video", "text", "prompt")}
    assert numbers["pools"]["layer 2"]["dead"] == [0, 2, 3, 4]


@pytest.mark.parametrize("kind", [MOME, SMOP], ids=["mome", "smop"])
def test_program(tiny_config, make_model, corpus, tmp_path, kind):
    settings = dict(compression="avg_pool", passes=PASSES, **kind)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny_config(**settings)))
    checkpoint.save(make_model(**settings).state_dict(), tmp_path / "model.pth")
    options = {"asr_train_config": tmp_path / "config.yaml", "asr_model_file": tmp_path / "model.pth", "data_dir": corpus / "valid"}
    options |= {"output_dir": tmp_path / "analysis" / "experts", "num_utts": 2}
    program.main([str(a) for name, value in options.items() for a in (f"--{name}", value)])
    numbers = json.loads((tmp_path / "analysis" / "experts" / "results.json").read_text())
    assert numbers["about"]["utterances"] == 2
    for row in numbers["shares"]:
        assert sum(row["first"]) == pytest.approx(1.0) == sum(row["second"])
    assert set(numbers["pools"]) == ({"layer 1", "layer 2"} if kind is MOME else {"projector audio", "projector video"})
    assert {tuple(row["passes"]) for row in numbers["agreement"]} == {(FINE.name, COARSE.name)}
    for figure in ("shares", "agreement"):
        assert (tmp_path / "analysis" / "experts" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    section = (tmp_path / "analysis" / "experts" / "section.md").read_text()
    assert "2 utterances" in section and "avsr_audio16_video5|audio" in section


ASR, VSR = {"task": "asr", "rates": {"audio": 4}}, {"task": "vsr", "rates": {"video": 2}}
RANDOM = ("random_rates", {"rates": {"audio": [4, 16], "video": [2, 5]}, "tasks": {"asr": 1.0, "avsr": 1.0}})


@pytest.mark.parametrize(
    "plan,asked,passes",
    [
        (("fixed", {"passes": [ASR, VSR]}), [], ["asr_audio4"]),
        (("fixed", {"passes": [ASR, VSR]}), ["--task", "vsr"], ["vsr_video2"]),
        (RANDOM, ["--task", "asr"], ["asr_audio4", "asr_audio16"]),
        (RANDOM, ["--video_rate", "5"], ["avsr_audio4_video5", "avsr_audio16_video5"]),
    ],
)
def test_passes_are_those_asked_for(tiny_config, corpus, tmp_path, plan, asked, passes):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny_config(compression="avg_pool", plan=plan, **MOME)))
    options = ["--asr_train_config", tmp_path / "config.yaml", "--data_dir", corpus / "valid", "--output_dir", tmp_path / "out", "--num_utts", 1]
    program.main([str(a) for a in (*options, *asked)])
    numbers = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(dict.fromkeys(row["pass"] for row in numbers["shares"])) == passes
    assert numbers["about"]["task"] == passes[0].split("_")[0]
