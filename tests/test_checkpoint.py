"""Checkpoints: what they hold, what they refuse, how they are written, read and averaged (contract 4 and 5)."""

import json

import numpy as np
import pytest
import torch

from espnet2_avsr_llm import checkpoint
from espnet2_avsr_llm.build import build

LORA = [
    f"llm.model.model.layers.{i}.self_attn.{m}.lora_{ab}.shared.weight" for i in (0, 1) for m in ("q_proj", "v_proj") for ab in "AB"
]
PROJECTOR = [f"projector.streams.{s}.{i}.{t}" for s in ("audio", "video") for i in (0, 2) for t in ("weight", "bias")]
ADDED = ["llm.added_input_rows", "llm.added_output_rows"]
EVERYTHING = {*LORA, *PROJECTOR, *ADDED, "_extra_state"}


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A file that would leave ``executed`` behind if it were unpickled, and that witness."""
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)  # a training in this process sets it
    torch.save({"model": Canary(tmp_path / "executed")}, tmp_path / "canary.pth")
    torch.load(tmp_path / "canary.pth", weights_only=False)
    witness = tmp_path / "executed"
    assert witness.exists()  # it is live
    witness.unlink()
    return tmp_path / "canary.pth", witness


def test_holds_what_cannot_be_rebuilt_and_nothing_else(make_model):
    states = make_model().state_dict()
    assert set(states) == EVERYTHING
    assert states["llm.added_input_rows"].shape == (5, 16)
    assert all(torch.is_tensor(t) for t in states.values())


def test_encoder_lora_is_held_and_encoder_is_not(make_model):
    states = make_model("vsr", video_frontend_conf={"lora": {"rank": 2, "scale": 1.0}}).state_dict()
    encoder = {n for n in states if n.startswith("frontends.")}
    layer = "frontends.video_frontend.encoder.encoder.layers.0.self_attn"
    assert encoder == {f"{layer}.{m}.lora_{ab}.default.weight" for m in ("q_proj", "v_proj") for ab in "AB"}


def test_tied_head_is_not_held(make_model, make_source, tmp_path):
    tied = make_source["llama"](tmp_path / "tied", tie_word_embeddings=True)
    model = make_model(llm_conf={"source": tied})
    assert {n for n in model.state_dict() if n.startswith("llm.")} == {*LORA, "llm.added_input_rows"}
    ids = model.llm.tokens.added_ids
    assert torch.equal(model.llm.model.lm_head.weight[ids], model.llm.added_input_rows)


def test_provenance_decides_not_requires_grad(make_model):
    """``--freeze_param projector`` must not drop the projector from the file."""
    model = make_model()
    model.projector.requires_grad_(False)
    model.llm.model.requires_grad_(False)
    assert set(model.state_dict()) == EVERYTHING
    model.requires_grad_(True)
    assert set(model.state_dict()) == EVERYTHING


def test_the_parts_are_looked_up_once_whatever_the_number_of_tensors(make_model, monkeypatch):
    """A lookup walks through all modules: for each tensor, it would take seconds at each save."""
    model, looked, lookup = make_model(), [], checkpoint.Checkpointed._pretrained
    monkeypatch.setattr(checkpoint.Checkpointed, "_pretrained", lambda self: looked.append(1) or lookup(self))
    states = model.state_dict()
    assert len(looked) == 2  # for the provenance and for the names
    model.load_state_dict(states)
    assert len(looked) == 4


def test_prefix_of_a_wrapper(make_model):
    """Inside DDP every name has a prefix."""
    wrapped = torch.nn.ModuleDict({"module": make_model("asr")})
    assert {n for n in wrapped.state_dict() if "encoder" in n or "embed_tokens" in n} == set()


def test_round_trip_gives_the_same_logits(make_model, make_batch, tmp_path):
    trained, fresh, batch = make_model(seed=1), make_model(seed=2), make_batch((16000, 25, 5))
    with torch.no_grad():
        trained.llm.added_input_rows.add_(1.0)
        trained.llm._write_rows()
        checkpoint.save(trained.state_dict(), tmp_path / "a.pth")
        before = fresh(**batch)[0]
        fresh.load_state_dict(checkpoint.load(tmp_path / "a.pth"))
        assert fresh(**batch)[0] == trained(**batch)[0] != before


@pytest.mark.parametrize("strict", [True, False])
def test_strict_in_both_directions(make_model, strict):
    model, states = make_model(), make_model(seed=1).state_dict()
    lacking = {n: t for n, t in states.items() if n != "projector.streams.audio.0.bias"}
    with pytest.raises(RuntimeError, match=r"lacks: projector\.streams\.audio\.0\.bias"):
        model.load_state_dict(lacking, strict=strict)
    with pytest.raises(RuntimeError, match=r"has besides: projector\.streams\.audio\.9\.bias"):
        model.load_state_dict(states | {"projector.streams.audio.9.bias": torch.zeros(1)}, strict=strict)
    with pytest.raises(RuntimeError, match="lacks: _extra_state"):
        model.load_state_dict({n: t for n, t in states.items() if n != "_extra_state"}, strict=strict)
    with pytest.raises(RuntimeError, match="of another model"):
        model.load_state_dict({"weight": torch.zeros(1)}, strict=strict)


@pytest.mark.parametrize("strict", [True, False])
def test_another_rank_is_refused(make_model, strict):
    with pytest.raises(RuntimeError, match=r"(?s)size mismatch.*lora_A"):
        make_model().load_state_dict(make_model(adapter_conf={"rank": 3}).state_dict(), strict=strict)


def test_another_task_is_refused(make_model):
    with pytest.raises(RuntimeError, match="video_frontend"):
        make_model("asr").load_state_dict(make_model("avsr").state_dict(), strict=False)


@pytest.mark.parametrize("strict", [True, False])
def test_another_base_llm_is_refused_and_both_are_named(make_model, make_source, tmp_path, strict):
    other = make_source["llama"](tmp_path / "other", seed=7)
    here, there = make_model(), make_model(llm_conf={"source": other})
    kept = {n: t.clone() for n, t in here.state_dict().items()}
    with pytest.raises(RuntimeError, match="llm = ") as error:
        here.load_state_dict(there.state_dict(), strict=strict)
    for model in (here, there):
        assert model.llm.provenance["source"] in str(error.value) and model.llm.provenance["digest"] in str(error.value)
    assert all(torch.equal(t, here.state_dict()[n]) for n, t in kept.items())  # nothing was loaded before the refusal


def test_another_vocabulary_is_refused_where_one_was_recorded(make_model):
    """The same weights with another tokenizer write another text."""
    model = make_model("asr")
    states = model.state_dict()
    recorded = json.loads(bytes(states["_extra_state"].tolist()))
    assert recorded["llm"]["tokenizer"] == model.llm.tokens.digest()
    older = recorded | {"llm": {k: v for k, v in recorded["llm"].items() if k != "tokenizer"}}
    for found, fits in ((recorded, True), (older, True), (recorded | {"llm": recorded["llm"] | {"tokenizer": "0" * 32}}, False)):
        states["_extra_state"] = torch.tensor(list(json.dumps(found).encode()), dtype=torch.uint8)
        if fits:
            model.load_state_dict(states)
        else:
            with pytest.raises(RuntimeError, match="another vocabulary of llm"):
                model.load_state_dict(states)


def test_the_same_llm_elsewhere_or_in_another_format_is_accepted(make_model, make_source, tmp_path):
    copy = make_source["llama"](tmp_path / "copy")
    make_model(llm_conf={"source": copy, "dtype": "bfloat16"}).load_state_dict(make_model().state_dict())


def test_provenance_is_recorded(make_model, sources):
    recorded = json.loads(bytes(make_model().state_dict()["_extra_state"].tolist()))
    assert {part: entry["source"] for part, entry in recorded.items()} == {
        "frontends.audio_frontend": sources["whisper"],
        "frontends.video_frontend": sources["avhubert"],
        "llm": sources["llama"],
    }
    assert all(len(entry["digest"]) == 32 and entry["revision"] == "" for entry in recorded.values())


def test_average_against_numpy(make_model, tmp_path):
    states = [make_model(seed=s).state_dict() for s in range(3)]
    for i, s in enumerate(states):
        checkpoint.save(s, tmp_path / f"{i}.pth")
    averaged = checkpoint.average(tmp_path / f"{i}.pth" for i in range(3))
    assert averaged.keys() == states[0].keys()
    for name in LORA + PROJECTOR:
        expected = np.mean([s[name].numpy().astype(np.float64) for s in states], axis=0)
        np.testing.assert_allclose(averaged[name].numpy(), expected, atol=1e-7)
        assert averaged[name].dtype == torch.float32
    assert torch.equal(averaged["_extra_state"], states[0]["_extra_state"])
    make_model().load_state_dict(averaged)


def test_averaging_leaves_its_inputs_alone_and_can_be_repeated(tmp_path):
    """ESPnet's own averaging overwrites what it has cached: every average after the first is wrong."""
    for i in range(3):
        checkpoint.save({"w": torch.full((2,), float(i))}, tmp_path / f"{i}.pth")
    means = [checkpoint.average([tmp_path / f"{i}.pth" for i in order])["w"][0].item() for order in ([0, 1], [0, 1, 2], [1, 2], [0])]
    assert means == [0.5, 1.0, 1.5, 0.0]


def test_integers_are_not_averaged(tmp_path):
    for i in (1, 2):
        checkpoint.save({"n": torch.tensor(6 * i), "w": torch.tensor(float(i))}, tmp_path / f"{i}.pth")
    averaged = checkpoint.average([tmp_path / "1.pth", tmp_path / "2.pth"])
    assert averaged["n"] == 6 and averaged["n"].dtype == torch.int64


def test_checkpoints_of_different_models_are_not_averaged(tmp_path):
    checkpoint.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    checkpoint.save({"b": torch.zeros(1)}, tmp_path / "b.pth")
    with pytest.raises(RuntimeError, match="different models"):
        checkpoint.average([tmp_path / "a.pth", tmp_path / "b.pth"])


def test_a_file_that_would_execute_is_refused(canary):
    file, witness = canary
    with pytest.raises(RuntimeError, match="canary.pth asks for .*, which no checkpoint needs. It was refused"):
        checkpoint.load(file)
    assert not witness.exists()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    checkpoint.save({"w": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(Exception, match="(?i)pickle"):
        checkpoint.save({"w": torch.zeros(100_000), "bad": lambda: None}, tmp_path / "a.pth")
    assert checkpoint.load(tmp_path / "a.pth")["w"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


def test_a_write_is_complete_before_the_name_appears(tmp_path, monkeypatch):
    checkpoint.save({"w": torch.ones(1)}, tmp_path / "a.pth")

    def half(states, path):
        path.write_bytes(b"half a file")
        assert path != tmp_path / "a.pth" and path.parent == tmp_path
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save({}, tmp_path / "a.pth")
    assert checkpoint.load(tmp_path / "a.pth")["w"] == 1 and len(list(tmp_path.iterdir())) == 1


def test_random_parts_have_a_provenance_too(tiny_config):
    conf = {"source": None, "init": "random", "arch": "tiny-avhubert"}
    model = build(tiny_config("vsr", video_frontend_conf=conf))
    assert model.provenance()["frontends.video_frontend"]["source"] == "random:tiny-avhubert"
    assert not any("encoder" in n for n in model.state_dict())
    other = build(tiny_config("vsr", video_frontend_conf=conf))
    other.load_state_dict(model.state_dict())
