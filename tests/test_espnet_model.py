"""The face for ESPnet: loss, statistics, weight, and number formats (defects of espnet_base.md sections 2 and 8)."""

import pytest
import torch

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
    assert {n: p.dtype for n, p in model.named_parameters()} == before


def test_further_entries_of_the_batch_are_ignored(make_model, make_batch):
    batch = make_batch((16000, 25, 5))
    model = make_model()
    assert model(**batch)[0] == model(**batch, utt_id=["a"], other=torch.zeros(1))[0]


def test_collects_no_features(make_model, make_batch):
    assert make_model().collect_feats(**make_batch((16000, 25, 5))) == {}
