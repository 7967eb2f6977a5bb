"""The model: contracts 1 to 4 of the design, and its numbers against the formulas of the specification."""

import itertools

import pytest
import torch

from espnet2_avsr_llm.adapter.mome import DENSE_LIMIT
from espnet2_avsr_llm.inference.generate import Search, generate
from espnet2_avsr_llm.pass_plan import Pass
from espnet2_avsr_llm.sequence import IGNORE, Role

# samples, frames, letters: mixed lengths, remainders of every kind, missing modalities
ROWS = {
    "asr": [(16000, None, 5), (9999, None, 1), (31234, None, 9), (2600, None, 3)],
    "vsr": [(None, 20, 5), (None, 7, 1), (None, 33, 9), (None, 2, 3)],
    "avsr": [(16000, 25, 5), (0, 13, 1), (31234, 0, 9), (6400, 9, 3)],
}
MOME = {"bottleneck": 3, "routed": 6, "top_k": 2}
VARIANTS = {f"smop {r}": {"projector": "smop", "projector_conf": {"routing": r}} for r in ("jejr", "jedr", "dedr")}
VARIANTS |= {f"mome {p}": {"adapter": "mome", "adapter_conf": {"placement": p, **MOME}} for p in ("ffn", "mhsa", "layer")}
VARIANTS |= {"mome of scales": {"adapter": "mome", "adapter_conf": {"routers": "scale", **MOME}}}
VARIANTS |= {"mome grouped": {"adapter": "mome", "adapter_conf": MOME | {"bottleneck": DENSE_LIMIT // 4 + 1}}}  # 6 - 2 experts in vain
CASES = [(task, compression, "plain") for task, compression in itertools.product(ROWS, ["stack", "avg_pool"])]
CASES += [("avsr", "avg_pool", variant) for variant in VARIANTS]


def text_of(batch):
    return batch["text"], batch["text_lengths"]


def run(model, batch):
    """Loss of each row and its logits over its own labels."""
    (pass_,) = model.plan.passes()
    features = model.encode(model.inputs(batch))
    out, (whole, *_) = (of(features, pass_, text_of(batch)) for of in (model.run_pass, model.predict))
    losses, logits = [], []
    for row, n in zip(whole, (batch["text_lengths"] + 1).tolist()):
        labels = torch.cat([batch["text"][len(losses), : n - 1], torch.tensor([model.llm.tokens.eos_id])])
        losses.append(torch.nn.functional.cross_entropy(row[-n:], labels))
        logits.append(row[-n:])
    return out, losses, logits


def decode(model, batch, beam_size):
    (pass_,) = model.plan.passes()
    none = [0] * len(batch["text"])
    seconds = [max(float(s) / 16000, float(v) / 25) for s, v in zip(batch.get("speech_lengths", none), batch.get("video_lengths", none))]
    search = Search(beam_size=beam_size, max_tokens_per_second=5, min_tokens=2)
    return [h[0].token_ids for h in generate(model, model.encode(model.inputs(batch)), pass_, seconds, search)]


@pytest.mark.parametrize("task,compression,variant", CASES)
def test_alone_equals_in_any_batch(make_model, make_batch, task, compression, variant):
    model = make_model(task, compression, **VARIANTS.get(variant, {})).eval()
    orders = [[2, 0, 1], [0, 1, 2, 3], [3, 2, 1, 0]][: 3 if variant == "plain" else 1]
    rows = ROWS[task][: len(orders[-1])]
    with torch.no_grad():
        single = [run(model, make_batch(row)) for row in rows]
        texts = {n: [decode(model, make_batch(row), n)[0] for row in rows] for n in (1, 3)}
        for order in orders:
            batch = make_batch(*(rows[i] for i in order))
            out, losses, logits = run(model, batch)
            for place, i in enumerate(order):
                torch.testing.assert_close(losses[place], single[i][1][0], atol=1e-4, rtol=0)
                torch.testing.assert_close(logits[place], single[i][2][0], atol=1e-4, rtol=0)
            # the batch's loss is the mean over its tokens, not over its rows
            tokens = (batch["text_lengths"] + 1).float()
            expected = sum(n * loss for n, loss in zip(tokens, losses)) / tokens.sum()
            torch.testing.assert_close(out.loss, expected, atol=1e-5, rtol=0)
            for beams in (1, 3):
                assert decode(model, batch, beams) == [texts[beams][i] for i in order]
    # rows differ, or the comparison would say nothing
    assert single[0][2][0][-1].sub(single[1][2][0][-1]).abs().max() > 0.1
    assert len({tuple(t) for t in texts[1]}) > 1


@pytest.mark.parametrize("variant", ["plain", *VARIANTS])
def test_decoding_with_the_cache_equals_the_full_forward(make_model, make_batch, variant):
    """Greedy steps without a cache, each over the whole sequence so far, give the tokens and scores of ``generate``."""
    model = make_model(compression="avg_pool", **VARIANTS.get(variant, {})).eval()
    (pass_,) = model.plan.passes()
    features = model.encode(model.inputs(make_batch((16000, 25, 5))))
    with torch.no_grad():
        ((found,),) = generate(model, features, pass_, [1.0], Search(max_tokens_per_second=8, min_tokens=2))
        inputs, _ = model.prepare(features, pass_)
        x, ids, score = inputs.inputs_embeds, [], 0.0
        while len(ids) < 8 and model.llm.tokens.eos_id not in ids:
            positions = torch.arange(x.shape[1])[None]
            with model.use(pass_):
                logits = model.llm(x, torch.ones_like(positions), positions, 1).logits[0, -1]
            ids.append(int(logits.argmax()))
            score += logits.log_softmax(-1).max().item()
            x = torch.cat([x, model.llm.embed(torch.tensor([ids[-1:]]))], 1)
    assert len(ids) > 1 and found.token_ids == [i for i in ids if i != model.llm.tokens.eos_id]
    assert found.score == pytest.approx(score, abs=1e-4)


def test_what_lies_in_the_padding_does_not_matter(make_model, make_batch):
    model = make_model().eval()
    batch = make_batch((16000, 25, 5), (6400, 9, 3))
    clean = run(model, batch)[2]
    batch["speech"][1, 6400:], batch["video"][1, 9:], batch["text"][1, 3:] = 5.0, 200, 77
    torch.testing.assert_close(run(model, batch)[2], clean, atol=1e-4, rtol=0)


def test_loss_and_accuracy_from_the_whole_sequence(make_model, make_batch):
    """Token mean of -log p over text and EOS, from logits at every position of one forward pass without logits_to_keep."""
    model = make_model().eval()
    batch = make_batch((16000, 25, 5), (0, 13, 1), (31234, 0, 9))
    (pass_,) = model.plan.passes()
    features = model.encode(model.inputs(batch))
    out = model.run_pass(features, pass_, text_of(batch))
    inputs, _ = model.prepare(features, pass_, text_of(batch))
    with model.use(pass_):
        logits = model.llm.model(inputs_embeds=inputs.inputs_embeds, attention_mask=inputs.attention_mask, position_ids=inputs.position_ids).logits
    nll, hits = [], []
    for row, labels in zip(logits.log_softmax(-1), inputs.labels):
        for position, label in enumerate(labels.tolist()):
            if label != IGNORE:
                nll.append(-row[position - 1, label])
                hits.append(row[position - 1].argmax() == label)
    assert len(nll) == (5 + 1) + (1 + 1) + (9 + 1)
    torch.testing.assert_close(out.loss, torch.stack(nll).mean())
    torch.testing.assert_close(out.accuracy, torch.stack(hits).float().mean())
    assert out.total == out.loss
    assert all(x.dim() == 0 for x in vars(out).values() if isinstance(x, torch.Tensor)), "logits are kept until the step's last pass"


def test_accuracy_counts_hits(make_model, make_batch):
    """With the model's own greedy text as the reference every token is right."""
    model = make_model("asr").eval()
    batch = make_batch((16000, None, 5))
    (ids,) = decode(model, batch, 1)
    batch["text"], batch["text_lengths"] = torch.tensor([ids]), torch.tensor([len(ids)])
    assert run(model, batch)[0].accuracy >= len(ids) / (len(ids) + 1)


def test_layout_of_a_batch(make_model, make_batch):
    """Roles, delimiters, prompt of what remains, labels with exactly one EOS."""
    model = make_model()
    tokens = model.llm.tokens
    batch = make_batch((16000, 25, 2), (0, 13, 4), (9600, 0, 1))
    (pass_,) = model.plan.passes()
    inputs, _ = model.prepare(model.encode(model.inputs(batch)), pass_, text_of(batch))
    blocks = [[("audio", 12), ("video", 12)], [("video", 6)], [("audio", 7)]]
    prompts = [tokens.prompt_ids(t) for t in ("avsr", "vsr", "asr")]
    for row, (block, prompt) in enumerate(zip(blocks, prompts)):
        roles, known = [Role.BOS], [tokens.bos_id]
        for stream, n in block:
            start, end = tokens.delimiter_ids(stream)
            roles += [Role.DELIMITER] + [Role[stream.upper()]] * n + [Role.DELIMITER]
            known += [start] + [None] * n + [end]
        text = batch["text"][row, : batch["text_lengths"][row]].tolist() + [tokens.eos_id]
        roles += [Role.PROMPT] * len(prompt) + [Role.TEXT] * len(text)
        known += prompt + text
        pad = inputs.roles.shape[1] - len(roles)
        assert inputs.roles[row].tolist() == [Role.PAD] * pad + roles
        assert inputs.attention_mask[row].tolist() == [0] * pad + [1] * len(roles)
        assert inputs.position_ids[row, pad:].tolist() == list(range(len(roles)))
        assert inputs.labels[row].tolist() == [IGNORE] * (inputs.labels.shape[1] - len(text)) + text
        for position, token in enumerate(known):
            if token is not None:
                assert torch.equal(inputs.inputs_embeds[row, pad + position], model.llm.embed(torch.tensor(token)))


def test_a_row_without_any_input_is_refused(make_model, make_batch):
    model = make_model()
    batch = make_batch((16000, 25, 2), (0, 0, 4))
    with pytest.raises(ValueError, match="Row 1 of the batch has no audio and no video"):
        model(**batch)
    with pytest.raises(ValueError, match="Row 0"):  # two frames of 50 Hz do not fill one token of rate 4
        model(**make_batch((640, 1, 2)))


def test_an_absent_input_is_named(make_model, make_batch):
    with pytest.raises(ValueError, match="lacks video; it has speech"):
        make_model()(**make_batch((16000, None, 2)))


def test_the_head_sees_only_the_labels(make_model, make_batch):
    model = make_model()
    seen = []
    model.llm.model.get_output_embeddings().register_forward_hook(lambda m, args, out: seen.append(args[0].shape[1]))
    batch = make_batch((16000, 25, 5), (6400, 9, 3))
    model(**batch)
    assert seen == [7]  # five letters, EOS, and the position before


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_llm_is_transformers_own(make_model, make_batch, checkpointing):
    from transformers import LlamaForCausalLM
    from transformers.models.llama import modeling_llama

    model = make_model(llm_conf={"gradient_checkpointing": checkpointing})
    model(**make_batch((16000, 25, 5)))[0].backward()
    assert type(model.llm.model) is LlamaForCausalLM
    for module in model.llm.model.modules():
        assert "forward" not in vars(module), f"{type(module).__name__} has a forward of its own"
        assert type(module).__module__.startswith(("transformers.", "torch.nn.", "peft."))
    assert modeling_llama.LlamaAttention.forward.__module__ == "transformers.models.llama.modeling_llama"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_frozen_means_frozen(make_model, make_batch, dtype):
    confs = {f"{part}_conf": {"dtype": dtype} for part in ("audio_frontend", "video_frontend", "llm")}
    model = make_model(**confs).to(dtype=torch.float32, device="cpu")  # as ESPnet calls it
    model.train()
    sources = [model.frontends["audio_frontend"].encoder, model.frontends["video_frontend"].encoder, model.llm.model]
    before = {name: tensor.clone() for name, tensor in torch.nn.Module.state_dict(model).items() if torch.is_tensor(tensor)}
    loss, _, _ = model(**make_batch((16000, 25, 5), (6400, 9, 3)))
    loss.backward()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    for source in sources:
        assert not any(m.training for m in source.modules())
        for name, p in source.named_parameters():
            if "lora_" not in name:
                assert p.dtype == getattr(torch, dtype) and p.grad is None and not p.requires_grad, name
    for name, p in model.named_parameters():
        if name in trained:
            assert p.dtype == torch.float32 and p.grad is not None and p.grad.dtype == torch.float32 and p.grad.abs().sum() > 0, name
    assert {n.split(".")[0] for n in trained} == {"projector", "llm"} and all("lora_" in n for n in trained if n.startswith("llm"))
    for name, tensor in torch.nn.Module.state_dict(model).items():  # BatchNorm statistics too
        assert not torch.is_tensor(tensor) or torch.equal(tensor, before[name]), name


def test_training_and_evaluation_agree(make_model, make_batch):
    """Nothing in the model is random: dropout of the frozen parts stays off in training."""
    model, batch = make_model(), make_batch((16000, 25, 5))
    losses = [model.train(mode)(**batch)[0] for mode in (True, True, False)]
    assert losses[0] == losses[1] == losses[2]


def test_frozen_encoders_keep_no_graph(make_model, make_batch):
    model = make_model()
    assert not any(x.requires_grad for x, _ in model.encode(model.inputs(make_batch((16000, 25, 5)))).values())
    model = make_model("vsr", video_frontend_conf={"lora": {"rank": 2, "scale": 1.0}})
    model(**make_batch((None, 9, 2)))[0].backward()
    encoder = model.frontends["video_frontend"].encoder
    assert all((p.grad is not None) == ("lora_" in n) for n, p in encoder.named_parameters())


def test_parts_on_devices_of_their_own(make_model, make_batch):
    """Inputs follow the encoders, features the projector."""
    kept = {f"{part}_conf": {"device": "cpu"} for part in ("audio_frontend", "video_frontend")}
    model = make_model(**kept).to("meta")
    assert {p.device.type for p in model.frontends.parameters()} == {"cpu"} and model.device.type == "meta"
    batch = make_batch((16000, 25, 5))
    assert {t.device.type for pair in model.encode(model.inputs(batch)).values() for t in pair} == {"meta"}


def test_the_text_follows_the_llm(make_model, make_batch, monkeypatch):
    model, batch, found = make_model(), make_batch((16000, 25, 5)), []
    model.llm.to("meta")
    (pass_,) = model.plan.passes()
    monkeypatch.setattr(model, "prepare", lambda *args: found.extend(x.device.type for x in args[2]))
    with pytest.raises(TypeError):  # what `prepare` gives is missing
        model.run_pass({}, pass_, text_of(batch))
    assert found == ["meta", "meta"]


def test_without_adapter_the_projector_alone_is_trained(make_model, make_batch):
    model = make_model(adapter=None)
    model(**make_batch((16000, 25, 5)))[0].backward()
    assert {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad} == {"projector"}


def test_pass_chosen_at_decoding_changes_the_tokens(make_model, make_batch):
    model = make_model(compression="avg_pool")
    features = model.encode(model.inputs(make_batch((16000, 25, 5))))
    inputs, _ = model.prepare(features, Pass("avsr", {"audio": 16, "video": 5}))
    roles = inputs.roles[0].tolist()
    assert (roles.count(Role.AUDIO), roles.count(Role.VIDEO)) == (50 // 16, 25 // 5)
