"""Shares, windows, alignment and their intervals, by hand and on planted set functions."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from espnet2_avsr_llm.analysis.modalities import alignment_map, audio_share, bootstrap, diagonal_score, grouped_map, share_by_window, summarise
from espnet2_avsr_llm.analysis.shap import Explanation, Settings, explain
from espnet2_avsr_llm.sequence import Role, lay_out


def explanation(phi, audio, error=None):
    phi = np.asarray(phi, float)
    tokens = np.zeros(phi.shape[1])
    return Explanation(phi, np.zeros_like(phi) if error is None else error, np.where(audio, "audio", "video"), tokens.astype(int), tokens, tokens, 1)


def test_shares_by_hand():
    found = explanation([[1, -1, 0, 0, 3], [0, 0, 0, 0, 1], [-1, 3, 2, 1, 0]], [1, 1, 0])
    assert audio_share(found) == pytest.approx(6 / 13)
    np.testing.assert_allclose(share_by_window(found), [1 / 2, 1 / 4, 0, 0, 1])


def test_windows_of_long_and_short_outputs():
    long = explanation(np.repeat([[1.0], [1.0]], 12, 1), [1, 0])
    long.phi[0, [0, 1]] = 3.0  # floor(linspace(0, 12, 6)) = 0 2 4 7 9 12
    np.testing.assert_allclose(share_by_window(long), [0.75, 0.5, 0.5, 0.5, 0.5])
    short = share_by_window(explanation([[1.0, 1.0], [1.0, 0.0]], [1, 0]))  # bounds 0 0 0 1 1 2
    np.testing.assert_allclose(short, [np.nan, np.nan, 0.5, np.nan, 1.0])


def test_maps_by_hand():
    phi = np.zeros((20, 30))
    phi[3, 29] = -2.0  # second of ten feature bins, last output bin
    expected = np.zeros((10, 10))
    expected[1, 9] = 1.0
    np.testing.assert_allclose(alignment_map(phi), expected)
    assert diagonal_score(np.eye(10) + 0.1) == pytest.approx(11.0) and diagonal_score(np.ones((10, 10))) == pytest.approx(1.0)
    grouped = grouped_map(np.ones((6, 20)) * np.arange(1, 7)[:, None])
    np.testing.assert_allclose(grouped, np.full((3, 10), 0.1))


@pytest.mark.parametrize("players, tokens", [(3, 2), (10, 10), (13, 7), (37, 41), (100, 200)])
def test_maps_of_any_size_are_flat_for_flat_values(players, tokens):
    np.testing.assert_allclose(alignment_map(np.ones((players, tokens))), np.full((10, 10), 0.01))
    np.testing.assert_allclose(grouped_map(np.ones((players, tokens))), np.full((3, 10), 0.1))


@pytest.fixture
def aligned(make_llm):
    """A Llama whose token t depends on the audio and video tokens around its own time alone, and an utterance of 30 + 20 + 24 tokens.

    Queries and keys are codes of time (cos, sin) in two dimensions that hardly rotate. A position that predicts token t finds the frames
    around t, and itself, which has no value; feature 0 of the frames goes into feature 2, which the head reads.
    """
    model = make_llm(num_hidden_layers=1, num_key_value_heads=4, rope_parameters={"rope_type": "default", "rope_theta": 1e12})
    weights = dict(model.llm.model.named_parameters())
    for name, w in weights.items():
        w.data.fill_(1.0 if "norm" in name else 0.0)
    for name in ("q_proj", "k_proj"):
        weights[f"model.layers.0.self_attn.{name}.weight"].data[[3, 7], [5, 6]] = 3.0
    weights["model.layers.0.self_attn.v_proj.weight"].data[0, 0] = weights["model.layers.0.self_attn.o_proj.weight"].data[2, 0] = 1.0
    weights["lm_head.weight"].data[10:20, 2] = torch.linspace(1, 3, 10)

    def coded(tokens, feature):
        x, angle = torch.zeros(tokens, model.llm.width), torch.pi * (torch.arange(tokens) + 0.5) / tokens
        x[:, feature], x[:, 5], x[:, 6] = 1.0, angle.cos(), angle.sin()
        return x

    predicts = coded(25, 4)
    labels = torch.randint(10, 20, (24,), generator=torch.Generator().manual_seed(0))
    bos = torch.zeros(1, model.llm.width) + torch.eye(model.llm.width)[4]
    rows = [(Role.BOS, bos, None), (Role.AUDIO, coded(30, 0), None), (Role.VIDEO, coded(20, 0), None)]
    return model, lay_out([[*rows, (Role.PROMPT, predicts[:1], None), (Role.TEXT, predicts[1:], labels)]])


def test_planted_alignment(aligned):
    """Aligned at least 5, shuffled 1 ± 0.1."""
    rng = np.random.default_rng(0)
    found = [explain(*aligned, None, Settings(max_evals=505, batch_size=64, seed=seed)) for seed in range(2)]
    shuffled = [replace(e, phi=e.phi[:, rng.permutation(24)]) for e in found for _ in range(90)]
    for stream in ("audio", "video"):
        assert summarise(found)["alignment"][stream]["score"]["value"] >= 5
        score = summarise(shuffled)["alignment"][stream]["score"]
        assert score["value"] == pytest.approx(1.0, abs=0.1) and score["low"] < 1.05 and score["high"] > 0.95


def test_interval_covers_the_mean():
    """95 % intervals of samples of 40 normal draws around 0.3."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        interval = bootstrap(rng.normal(0.3, 0.1, 40))
        assert interval["low"] < interval["value"] < interval["high"]
        covered += interval["low"] < 0.3 < interval["high"]
    assert 0.88 < covered / 200 < 0.99


def test_interval_leaves_missing_values_out():
    rows = bootstrap(np.array([[1.0, np.nan], [3.0, 5.0], [2.0, np.nan]]))
    assert [r["value"] for r in rows] == [2.0, 5.0] and rows[1]["low"] == rows[1]["high"] == 5.0
    assert bootstrap(np.array([[np.nan, 1.0], [np.nan, 2.0]]))[0] is None
    one = bootstrap(np.array([0.4]))
    assert one == {"value": 0.4, "low": 0.4, "high": 0.4}


def test_windows_and_alignment_of_the_longest():
    """Global is of all utterances, the others of those with the most players."""
    rng = np.random.default_rng(0)
    found = [explanation(rng.normal(size=(n, 10)), np.arange(n) < n // 2) for n in (12, 30, 20, 16)]
    longest, of_all = summarise(found, longest=2), summarise(found)
    assert (longest["utterances"], longest["audio_share"]) == (4, of_all["audio_share"])
    these = summarise([found[1], found[2]])
    assert all(longest[name] == these[name] != of_all[name] for name in ("by_window", "alignment"))


def test_summary_of_one_stream_and_of_unknown_errors():
    found = [explanation(np.eye(10) + 0.1, [1] * 10, np.full((10, 10), np.nan))]
    summary = summarise(found)
    assert summary["audio_share"]["value"] == summary["player_share"] == 1.0 and summary["noise"] is None
    assert list(summary["alignment"]) == ["audio"] and len(summary["by_window"]) == 5
