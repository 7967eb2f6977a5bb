"""Released checkpoints in all variants: the model computes what their authors' program does, the experiment is complete, the way back exact."""

from itertools import product

import torch
import yaml

from espnet2_avsr_llm.convert.released import to_released
from espnet2_avsr_llm.inference.load import load_model

FRAMES, TEXT = 27, [70, 71, 80, 90]


def make_inputs(model, frames=FRAMES, seed=5):
    """Inputs of one utterance for every frontend, without padding."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"speech": (frames, 104) if any(f.filterbanks for f in model.frontends.values()) else (frames * 640,), "video": (frames, 88, 88)}
    names = {name for frontend in model.frontends.values() for name in frontend.inputs}
    return {name: torch.randn(shapes[name], generator=generator) for name in sorted(names)}


@torch.no_grad()
def encode(model, inputs):
    batch = {name: x[None] for name, x in inputs.items()} | {f"{name}_lengths": torch.tensor([len(x)]) for name, x in inputs.items()}
    return model.encode(model.inputs(batch))


@torch.no_grad()
def run(model, features, pass_, text=TEXT):
    prepared, _ = model.prepare(features, pass_=pass_, text=(torch.tensor([text]), torch.tensor([len(text)])))
    with model.use(pass_, prepared.attention_mask):
        logits = model.llm(prepared.inputs_embeds, prepared.attention_mask, prepared.position_ids, prepared.inputs_embeds.shape[1]).logits
    return prepared.inputs_embeds[0], logits[0]


def test_numbers_of_the_released_program(converted):
    inputs, passes = make_inputs(converted.model), converted.model.plan.all_passes()
    assert {(p.task, *sorted(p.rates.items())) for p in passes} == expected_passes(converted.authors.case)
    features, theirs = encode(converted.model, inputs), converted.authors.features(converted.state, inputs)
    for pass_ in passes:
        embeds, logits = converted.authors.run(converted.state, theirs, pass_.task, pass_.rates, TEXT)
        found_embeds, found_logits = run(converted.model, features, pass_)
        torch.testing.assert_close(found_embeds, embeds, atol=1e-4, rtol=0)
        torch.testing.assert_close(found_logits, logits, atol=1e-4, rtol=0)
        assert logits.std() > 0.1


def expected_passes(case):
    streams = {"asr": ["audio"], "vsr": ["video"], "avsr": ["audio", "video"]}
    tasks = streams if case.system == "omni_avsr" else {t: s for t, s in streams.items() if s == sorted(case.rates)} or {"avsr": ["audiovisual"]}
    return {(t, *zip(read, rates)) for t, read in tasks.items() for rates in product(*(case.rates[s] for s in read))}


def test_experiment_is_complete(converted):
    """Speech2Text's loader reads the folder and gets the same numbers."""
    loaded = load_model(converted.folder / "config.yaml", converted.folder / "model.pth")
    inputs, pass_ = make_inputs(converted.model), converted.model.plan.all_passes()[-1]
    for found, expected in zip(*(run(model, encode(model, inputs), pass_) for model in (loaded, converted.model))):
        assert torch.equal(found, expected)


def test_lora_is_in_the_form_of_peft(converted):
    states, case = torch.load(converted.folder / "model.pth", weights_only=True), converted.authors.case
    lora = {n for n in states if "lora" in n}
    sets = {"": "shared", "_shared": "shared", ".audio": "task_asr", ".video": "task_vsr", ".audiovisual": "task_avsr"}
    expected = {
        f"llm.model.model.layers.{i}.self_attn.{m}_proj.lora_{ab}.{sets[s]}.weight" for i in (0, 1) for m in "qv" for ab in "AB" for s in case.sets
    }
    if case.encoder_lora:
        layer = "frontends.video_frontend.encoder.encoder.layers.0.self_attn"
        expected |= {f"{layer}.{m}_proj.lora_{ab}.default.weight" for m in "qv" for ab in "AB"}
    assert lora == expected
    assert all(t.dtype == torch.float32 for n, t in states.items() if n != "_extra_state")


def test_way_back_is_exact(converted):
    back = to_released(converted.folder)
    assert list(back) == list(converted.state)
    for name, tensor in converted.state.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor), name


def test_tokenizer_has_the_added_tokens(converted):
    tokens, authors = converted.model.llm.tokens, converted.authors
    assert tokens.tokenizer.convert_tokens_to_ids(authors.added) == tokens.added_ids == list(range(authors.own, authors.own + len(authors.added)))
    assert len(tokens) == converted.model.llm.model.get_input_embeddings().weight.shape[0] == converted.state["llm.lm_head.weight"].shape[0]
    assert tokens.pad_id == (tokens.eos_id if authors.case.qwen else authors.own)


def test_configuration_says_what_was_inferred(converted):
    config, case = yaml.safe_load((converted.folder / "config.yaml").read_text()), converted.authors.case
    assert config["compression"] == ("stack" if case.stack else "avg_pool")
    assert config["projector"] == ("smop" if case.experts else "mlp_bank" if case.bank else "mlp")
    assert config["llm_conf"]["rope_frequency_dtype"] == config["llm_conf"]["dtype"] == "float32"
    assert config["adapter_conf"] == {} if not case.sets else config["adapter_conf"]["rank"] == 3 and config["adapter_conf"]["scale"] == 0.125
