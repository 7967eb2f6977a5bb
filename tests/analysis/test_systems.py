"""Both analyses on every system: any task, projector, adapter and plan."""

import numpy as np
import pytest
import torch

from espnet2_avsr_llm.analysis.shap import Settings, explain
from espnet2_avsr_llm.analysis.sinks import trace

OMNI = ("random_rates", {"rates": {"audio": [4, 8], "video": [2, 5]}, "tasks": {"asr": 1.0, "vsr": 1.5, "avsr": 1.0}})
MOME = {"bottleneck": 3, "routed": 6, "top_k": 2}


def one_encoder(*streams):
    """AV-HuBERT in its two audio-visual modes."""
    passes = [{"task": "avsr", "rates": dict.fromkeys(streams, 3)}]
    return dict(passes=passes, audio_frontend=None, video_frontend="avhubert", video_frontend_conf={"streams": list(streams)})


SYSTEMS = {
    "asr": dict(task="asr"),
    "vsr": dict(task="vsr"),
    "no_adapter": dict(adapter=None),
    "smop": dict(projector="smop", projector_conf={"routing": "dedr"}),
    **{f"mome_{place}": dict(adapter="mome", adapter_conf={**MOME, "placement": place}) for place in ("ffn", "mhsa", "layer")},
    "two_streams": one_encoder("audio", "video"),
    "fused": one_encoder("audiovisual"),
    "omni": dict(compression="avg_pool", projector="mlp_bank", plan=OMNI, adapter_conf={"sets": ["shared", "task"]}),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_any_system(make_model, make_batch, make_source, tmp_path, name):
    model = make_model(llm_conf={"source": make_source["llama"](tmp_path, num_hidden_layers=4)}, **SYSTEMS[name]).eval()
    names = model.input_names()
    batch = make_batch((9600 if "speech" in names else None, 15 if "video" in names else None, 2), filterbanks=name in ("two_streams", "fused"))
    found = {}
    for pass_ in model.plan.all_passes()[::3]:
        with torch.no_grad():
            features = model.encode(model.inputs(batch, pass_.rates))
            inputs, _ = model.prepare(features, pass_, (batch["text"], batch["text_lengths"]))
            prefix, _ = model.prepare(features, pass_)
        values = explain(model, inputs, pass_, Settings(max_evals=60))
        np.testing.assert_allclose(values.phi.sum(0), values.full - values.empty, atol=1e-6)
        assert set(values.streams) == set(pass_.rates) and np.abs(values.phi).sum(0).min() > 1e-4
        seen = trace(model, prefix, pass_)
        assert seen.attention.shape == seen.cosine.shape == (4, prefix.roles.shape[1]) and np.isfinite(seen.attention).all()
        found[pass_.name] = seen.cosine.sum()
    assert len(set(found.values())) == len(found)
