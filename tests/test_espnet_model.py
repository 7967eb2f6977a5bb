"""The face for ESPnet: loss, statistics, weight, and number formats (defects of espnet_base.md sections 2 and 8)."""

import pytest
import torch

from espnet2_avsr_llm.pass_plan import Pass

RATES = {"audio": [4, 16], "video": [2, 5]}
MTSK = ("all_rates", {"task": "avsr", "rates": RATES})
OMNI = ("random_rates", {"rates": RATES, "tasks": {"asr": 1.0, "vsr": 1.5, "avsr": 1.0}})
PASSES = [{"task": "asr", "rates": {"audio": 4}, "weight": 0.5}, {"task": "avsr", "rates": {"audio": 16, "video": 5}, "weight": 2.0}]


def test_weight_is_the_number_of_scored_tokens(make_model, make_batch):
    _, _, weight = make_model()(**make_batch((16000, 25, 5), (6400, 9, 3)))
    assert weight == 5 + 1 + 3 + 1


def test_dividing_the_loss_in_place_leaves_the_log_alone(make_model, make_batch):
    """ESPnet's trainer runs ``loss /= accum_grad`` before it registers the statistics."""
    loss, stats, _ = make_model()(**make_batch((16000, 25, 5)))
    logged = stats["loss"].item()
    with torch.no_grad():
        loss.div_(4)
    assert stats["loss"].item() == logged != loss.item()


def test_loss_is_the_weighted_sum_of_the_passes(make_model, make_batch):
    model = make_model(compression="avg_pool", passes=PASSES)
    loss, stats, _ = model(**make_batch((16000, 25, 5), (6400, 9, 3)))
    names = ("asr_audio4", "avsr_audio16_video5")
    torch.testing.assert_close(loss, 0.5 * stats[f"loss_{names[0]}"] + 2.0 * stats[f"loss_{names[1]}"])
    torch.testing.assert_close(stats["acc"], (stats[f"acc_{names[0]}"] + stats[f"acc_{names[1]}"]) / 2)


def test_one_rate_of_llama_mtsk_is_llama_avsr(make_model, make_batch):
    """Loss and gradients of MS with a single pair, and of average pooling with LayerNorm, from the same weights."""
    one = dict(compression="avg_pool", projector_conf={"layer_norm": True})
    models = [make_model(**one), make_model(**one, projector="mlp_bank", plan=("all_rates", {"task": "avsr", "rates": {"audio": [4], "video": [2]}}))]
    models[1].load_state_dict({_in_bank(n): t for n, t in models[0].state_dict().items()})
    found = []
    for model in models:
        loss = model(**make_batch((16000, 25, 5), (8000, 13, 2)))[0]
        loss.backward()
        found.append((loss, {n: p.grad for n, p in model.named_parameters() if p.requires_grad}))
    (loss, gradients), (loss_ms, gradients_ms) = found
    torch.testing.assert_close(loss_ms, loss, atol=1e-6, rtol=0)
    assert {_in_bank(n) for n in gradients} == gradients_ms.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_ms[_in_bank(name)], gradient, atol=1e-6, rtol=0)
        assert gradient.abs().max() > 1e-3, name


def _in_bank(name):
    return name.replace("streams.audio.", "streams.audio.4.").replace("streams.video.", "streams.video.2.")


@pytest.mark.parametrize("sets", [["shared"], ["task"], ["shared", "task"]], ids="+".join)
def test_the_loss_of_omni_is_the_weighted_sum_of_its_tasks(make_model, make_batch, sets):
    """1, 1.5 and 1 times the losses of three runs of their own, at the rates drawn for the step."""
    model = make_model(compression="avg_pool", projector="mlp_bank", plan=OMNI, adapter_conf={"sets": sets})
    batch = make_batch((16000, 25, 5), (8000, 13, 2))
    text = batch["text"], batch["text_lengths"]
    losses = {}
    for update in range(8):
        rates = model.plan.passes((0, update))[2].rates
        terms = []
        for weight, task, streams in ((1, "asr", ["audio"]), (1.5, "vsr", ["video"]), (1, "avsr", ["audio", "video"])):
            alone = Pass(task, {s: rates[s] for s in streams})
            terms.append(weight * model.run_pass(model.encode(model.inputs(batch)), alone, text).loss)
        loss = losses[tuple(rates.values())] = model(**batch, step=(0, update))[0].squeeze()
        torch.testing.assert_close(loss, sum(terms), atol=1e-5, rtol=0)
    assert len(losses) == len({x.item() for x in losses.values()}) > 1


def test_each_task_of_omni_trains_its_own_adapter(make_model, make_batch):
    model = make_model(compression="avg_pool", plan=OMNI, adapter_conf={"sets": ["task"]})
    batch = make_batch((16000, 25, 5))
    for pass_ in model.plan.passes((0, 0)):
        model.zero_grad()
        model.run_pass(model.encode(model.inputs(batch)), pass_, (batch["text"], batch["text_lengths"])).loss.backward()
        reached = {n.split(".")[-2] for n, p in model.named_parameters() if "lora_" in n and p.grad is not None and p.grad.any()}
        assert reached == {f"task_{pass_.task}"}


@pytest.mark.parametrize("step", [(0, 0), None], ids=["training", "validation"])
@pytest.mark.parametrize("plan", [None, ("fixed", {"passes": PASSES}), MTSK, OMNI], ids=["single", "list", "mtsk", "omni"])
def test_each_encoder_runs_once_per_batch(make_model, make_batch, plan, step):
    model = make_model(compression="avg_pool", plan=plan)
    runs = {name: [] for name in model.frontends}
    for name, frontend in model.frontends.items():
        frontend.register_forward_hook(lambda *_, name=name: runs[name].append(1))
    model(**make_batch((16000, 25, 5), (8000, 13, 2)), step=step)
    assert {name: len(r) for name, r in runs.items()} == {"audio_frontend": 1, "video_frontend": 1}


@pytest.mark.parametrize("passes", [None, PASSES])
def test_statistics_have_the_same_keys_for_all_batches(make_model, make_batch, passes):
    """Ranks with different keys would hang; no gradient may hang on a statistic either."""
    model = make_model(compression="avg_pool", passes=passes)
    batches = [make_batch((16000, 25, 5)), make_batch((16000, 0, 5), (9600, 0, 2)), make_batch((16000, 13, 2), (9600, 0, 2))]
    stats = [model(**b)[1] for b in batches]
    assert {"loss", "acc"} <= stats[0].keys() == stats[1].keys() == stats[2].keys()
    assert all(torch.is_tensor(v) and not v.requires_grad for s in stats for v in s.values())


def test_moving_changes_no_format(make_model):
    model = make_model(llm_conf={"dtype": "bfloat16"})
    before = {n: p.dtype for n, p in model.named_parameters()}
    assert set(before.values()) == {torch.float32, torch.bfloat16}
    model.to(device="cpu", dtype=torch.float32)
    model.to("cpu", dtype=torch.float16)
    model.to("cpu", torch.float16)
    model.to(torch.float16)
    model.to(dtype=torch.float16)
    assert {n: p.dtype for n, p in model.named_parameters()} == before


def test_further_entries_of_the_batch_are_ignored(make_model, make_batch):
    batch = make_batch((16000, 25, 5))
    model = make_model()
    assert model(**batch)[0] == model(**batch, utt_id=["a"], other=torch.zeros(1))[0]


def test_collects_no_features(make_model, make_batch):
    assert make_model().collect_feats(**make_batch((16000, 25, 5))) == {}
