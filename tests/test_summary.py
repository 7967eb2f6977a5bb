"""Parameter, token and FLOP counts against the papers' and against the real model."""

import json
import logging
from pathlib import Path

import pytest

from espnet2_avsr_llm.bin import summary as program
from espnet2_avsr_llm.config import load_config
from espnet2_avsr_llm.summary import on_meta, parameters, summarise

CONF = Path(__file__).resolve().parents[1] / "conf" / "train"


@pytest.fixture(autouse=True)
def logging_stays_on():
    """The program silences logging for its own process."""
    yield
    logging.disable(logging.NOTSET)


def run(capsys, *args):
    program.main([str(a) for a in args])
    return capsys.readouterr().out


@pytest.mark.parametrize("task,expected", [("asr", 41_949_184), ("vsr", 48_240_640), ("avsr", 56_635_392)])
def test_trainable_parameters_of_the_published_systems(capsys, task, expected):
    out = json.loads(run(capsys, "--config", CONF / f"llama_avsr_{task}.yaml", "--json"))
    counts = out["parameters"]
    assert counts["trainable"] == expected
    assert counts["trainable"] == sum(c["trainable"] for c in counts["by_part"].values())
    assert counts["total"] == sum(c["total"] for c in counts["by_part"].values()) > 8e9
    assert counts["by_part"]["llm"]["trainable"] == 0


# Llama-3.2-1B, rank 64: a set is 16 layers x 64 (2048 + 2048 + 2048 + 512)
SET = 6_815_744


@pytest.mark.parametrize("variant,sets,active", [("ms", 1, 1), ("ss", 4, 1), ("mss", 5, 2)])
def test_lora_of_llama_mtsk(variant, sets, active):
    counts = parameters(on_meta(load_config(CONF / f"llama_mtsk_{variant}.yaml")))["by_part"]["adapter"]
    assert (counts["trainable"], counts["active"]) == (sets * SET, active * SET)


@pytest.mark.parametrize("variant,trainable,sets", [("s", 38.29, 1), ("t", 51.92, 3), ("st", 58.74, 4)])
def test_trainable_parameters_of_omni_avsr(variant, trainable, sets):
    counts = parameters(on_meta(load_config(CONF / f"omni_avsr_{variant}.yaml")))
    assert counts["trainable"] / 1e6 == pytest.approx(trainable, abs=0.005)
    by_part = {part: c["trainable"] for part, c in counts["by_part"].items()}
    projector = 1024 * 2048 + 2048 + 2048 * 2048 + 2048
    assert by_part == {"audio_frontend": 0, "video_frontend": 6_291_456, "projector": 4 * projector, "llm": 0, "adapter": sets * SET}


def test_active_parameters_of_omni_avsr_st():
    """32.5 M at one rate pair for both modalities: two LoRA sets, two projectors, the video encoder's LoRA."""
    counts = parameters(on_meta(load_config(CONF / "omni_avsr_st.yaml")))["by_part"]
    assert (counts["adapter"]["active"] + counts["projector"]["active"] + 6_291_456) / 1e6 == pytest.approx(32.5, abs=0.05)


def test_tokens_and_flops_of_the_papers(capsys):
    rates = ["1,1", "4,2", "4,5", "16,2", "16,5"]
    args = ["--config", CONF / "llama_avsr_avsr.yaml", "--compression", "avg_pool", "--rates", *rates, "--seconds", 10, "--prompt_tokens", 7]
    passes = json.loads(run(capsys, *args, "--json"))["passes"]
    assert [(p["audio_tokens"], p["video_tokens"]) for p in passes] == [(500, 250), (125, 125), (125, 50), (31, 125), (31, 50)]
    assert [p["paper_tflops"] for p in passes] == pytest.approx([11.40, 3.87, 2.74, 2.46, 1.33], rel=0.01)
    # the head at one position instead of all: what this program computes is less
    assert all(0.5 * p["paper_tflops"] < p["llm_tflops"] for p in passes) and passes[0]["llm_tflops"] < passes[0]["paper_tflops"]


def test_overrides_as_in_training(capsys):
    args = ["--config", CONF / "llama_avsr_asr.yaml", "--json"]
    small = json.loads(run(capsys, *args, "--llm_conf", "arch=tiny-llama", "--adapter_conf", "rank=2", "--adapter_conf", "scale=1", "--projector_conf", "layer_norm=true"))
    by_part = small["parameters"]["by_part"]
    assert by_part["adapter"]["total"] == 3 * 2 * (32 + 32) + 3 * 2 * (32 + 16)
    assert by_part["projector"]["total"] == 3 * 1024 * 2048 + 2048 + 2048 * 32 + 32 + 64


def test_released_joint_mixture_of_projectors(capsys):
    """Llama-SMoP's checkpoint (specification 3.2): pooled features of width 1024, LayerNorm, four experts and a router."""
    args = ["--config", CONF / "llama_smop_jejr.yaml", "--json", "--compression", "avg_pool", "--audio_frontend_conf", "arch=whisper-medium.en"]
    args += ["--projector_conf", "layer_norm=true", "--plan_conf", "passes=[{task: avsr, rates: {audio: 4, video: 2}}]"]
    projector = json.loads(run(capsys, *args))["parameters"]["by_part"]["projector"]
    assert projector["total"] == 25_202_688
    assert projector["active"] == 25_202_688 - 4 * 1024  # two experts of an audio token and two of a video token


def test_sizes_of_mome_by_override(capsys):
    """Specification 4.2: 1B as configured, 3B with bottleneck 12, 8B with that of 1B, as the configuration's header says."""
    args = ["--config", CONF / "mome_mhsa.yaml", "--json"]
    larger = [["--llm_conf", "arch=llama-3.2-3b", "--adapter_conf", "bottleneck=12"], ["--llm_conf", "arch=llama-3.1-8b"]]
    counts = [json.loads(run(capsys, *args, *more))["parameters"]["by_part"]["adapter"] for more in ([], *larger)]
    assert [round(c["active"] / 1e6, 2) for c in counts] == [3.54, 12.73, 14.16]
    assert [round(c["total"] / 1e6, 1) for c in counts] == [14.1, 53.6, 56.5]
    assert all(c["trainable"] == c["total"] for c in counts)


def test_table(capsys):
    out = run(capsys, "--config", CONF / "llama_avsr_asr.yaml", "--llm_conf", "arch=tiny-llama")
    assert "audio_frontend" in out and "asr {'audio': 3}" in out and "(10.0 s)" in out


def test_counts_equal_the_real_model(tiny_config, make_model, make_batch):
    passes = [{"task": "asr", "rates": {"audio": 4}}, {"task": "vsr", "rates": {"video": 2}}]
    model = make_model(compression="avg_pool", passes=passes, adapter_conf={"sets": ["shared", "task"]})
    counts = parameters(model)
    assert counts["total"] == sum(p.numel() for p in model.parameters())
    assert counts["trainable"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counts["by_part"]["adapter"]["active"] == counts["by_part"]["adapter"]["total"] * 2 // 3  # one task of two is asleep


def test_on_meta_allocates_nothing_and_asks_for_no_source():
    model = on_meta(load_config(CONF / "llama_avsr_avsr.yaml"))
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert not any(p.is_floating_point() and p.device.type != "meta" for p in model.buffers() if p.numel() > 1e6)


OTHERS = {
    "gpt2": dict(n_embd=32, n_layer=2, n_head=4),
    "mixtral": dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, num_local_experts=6),
    "gemma3": dict(  # with eyes, and as many layers in them
        text_config=dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8),
        vision_config=dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14),
        mm_tokens_per_image=4,
    ),
}


@pytest.fixture
def make_llm(make_source, tmp_path):
    """``make_llm(model_type)``: the configuration of a tiny LLM."""
    from transformers import AutoConfig, AutoModelForCausalLM

    def make(kind):
        folder = make_source["llama"](tmp_path / kind)  # for its tokenizer
        if kind in OTHERS:
            old = AutoConfig.from_pretrained(folder)
            sizes, ids = dict(OTHERS[kind]), {name: getattr(old, name) for name in ("vocab_size", "bos_token_id", "eos_token_id")}
            sizes |= {"text_config": sizes["text_config"] | ids} if "text_config" in sizes else ids
            AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(folder)
        return {"source": folder}

    return make


@pytest.mark.parametrize(
    "kind,adapter",
    [("llama", None), ("llama", "lora"), ("llama", "mome"), ("gpt2", "lora"), ("mixtral", "mome"), ("gemma3", "lora")],
)
def test_flops_of_the_prefix_against_a_counter(make_model, make_batch, make_llm, kind, adapter):
    """torch's own count of multiplications of one prefill, for a model whose rotary and norms are negligible."""
    from torch.utils.flop_counter import FlopCounterMode

    conf = {"adapter_conf": {"target_modules": ["c_attn"]}} if kind == "gpt2" else {}
    model = make_model("asr", adapter=adapter, llm_conf=make_llm(kind), **conf).eval()
    n, seconds = len(model.llm.tokens.prompt_ids("asr")), 2.0
    batch = make_batch((int(seconds * 16000), None, 1))
    (pass_,) = model.plan.passes()
    inputs, _ = model.prepare(model.encode(model.inputs(batch)), pass_)
    model.llm.model.set_attn_implementation("eager")
    model.llm.model.set_experts_implementation("eager")  # the counter does not see the grouped product
    with FlopCounterMode(display=False) as counter, model.use(pass_):
        model.llm(inputs.inputs_embeds, inputs.attention_mask, inputs.position_ids, 1)
    assert model.llm.layers[0] in model.llm.model.get_decoder().modules()
    (cost,) = summarise(model, None, seconds, n)["passes"]
    tokens, config = inputs.inputs_embeds.shape[1], model.llm.model.config.get_text_config()
    full_attention = 4 * tokens**2 * config.hidden_size * config.num_hidden_layers  # eager multiplies above the diagonal too
    assert cost["llm_tflops"] * 1e12 == pytest.approx(counter.get_total_flops() - full_attention / 2, rel=0.01)


@pytest.mark.parametrize("rates", [["4"], ["4,2,1"]])
def test_wrong_number_of_rates(rates):
    with pytest.raises(ValueError, match="one rate for each of audio, video"):
        program.main(["--config", str(CONF / "llama_avsr_avsr.yaml"), "--rates", *rates, "--llm_conf", "arch=tiny-llama"])
