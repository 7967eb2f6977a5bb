"""Released checkpoints against the vectors that the official programs computed from them, for every case in AVSR_GOLDEN."""

import os
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from espnet2_avsr_llm.convert import load_released
from espnet2_avsr_llm.pass_plan import Pass

FOLDER = os.environ.get("AVSR_GOLDEN")
NAMES = sorted(f.stem for pattern in ("llama_avsr_*.pt", "omni_*.pt") for f in Path(FOLDER).glob(pattern)) if FOLDER else []
TASKS = {"audio": "asr", "video": "vsr", "audiovisual": "avsr", "audiovisual_avhubert": "avsr"}
TOLERANCE = dict(atol=1e-4, rtol=0)
pytestmark = pytest.mark.skipif(not FOLDER, reason="AVSR_GOLDEN, the folder of the official programs' reference vectors, is not set")


@pytest.fixture(scope="module", params=NAMES)
def case(request, golden, tmp_path_factory):
    """A case, and the model of its checkpoint."""
    case, file = golden.case(request.param), tmp_path_factory.mktemp("golden") / "released.pth"
    torch.save(case["state_dict"], file)
    model, tokenizer = load_released(file, released=True, **_options(case))
    assert all(tokenizer.convert_tokens_to_ids(token) == i for token, i in case["tokenizer"].items())
    return case | {"model": model}


def _options(case):
    """Folders of the hub and rates, as the official program was given them."""
    args, hub = case["args"], Path(FOLDER) / "hub"
    heads = {"encoder_attention_heads": 4}
    audio = hub / args["audio_encoder_name"] if "whisper" in (args["audio_encoder_name"] or "") else heads
    streams = [s for s in ("audio", "video", "audiovisual") if any(k.startswith(f"{s}_proj.") for k in case["state_dict"])]
    rates = {s: args[f"downsample_ratio_{s}"] for s in streams}
    return {"audio_encoder": audio, "video_encoder": heads, "llm": hub / args["llm_model"], "rates": rates}


def _encode(case, golden, names, modality):
    """Features of a batch of samples; a modality that the model reads and the batch has not is a row of length zero."""
    items = [golden.sample(case, s, modality) for s in names]
    batch = {}
    for name, key, empty in (("speech", "audio", (0, 1)), ("video", "video", (0, 1, 88, 88))):
        rows = [i.get(key, torch.zeros(empty)) for i in items]
        rows = [r if r.shape[-1] == 104 else r.squeeze(1) for r in rows]
        batch |= {name: pad_sequence(rows, batch_first=True), f"{name}_lengths": torch.tensor([len(r) for r in rows])}
    with torch.no_grad():
        return case["model"].encode(case["model"].inputs(batch))


def _texts(labels):
    """Ids without BOS and EOS of each row of the official labels."""
    rows = [row[1:][row[1:] != -100][:-1] for row in labels]
    return pad_sequence(rows, batch_first=True), torch.tensor([len(r) for r in rows])


@torch.no_grad()
def _logits(model, inputs, pass_):
    with model.use(pass_, inputs.attention_mask):
        return model.llm(inputs.inputs_embeds, inputs.attention_mask, inputs.position_ids, inputs.inputs_embeds.shape[1]).logits


@torch.no_grad()
def _greedy(model, inputs, pass_):
    tokens = model.llm.tokens
    with model.use(pass_, inputs.attention_mask):
        return model.llm.model.generate(
            inputs_embeds=inputs.inputs_embeds,
            attention_mask=inputs.attention_mask,
            do_sample=False,
            max_new_tokens=16,
            eos_token_id=tokens.eos_id,
            pad_token_id=tokens.pad_id,
        ).tolist()


def _training_passes(case):
    """(task, rates, embeddings or None, logits of the last positions, labels) of every pass whose logits are kept."""
    modality = case.get("modality")
    if "train" in case:
        for (audio, video), step in case["train"].items():
            for name, call in step["calls"].items():
                if "logits_tail" in call:
                    rates = {s: r for s, r in (("audio", audio), ("video", video)) if name in (s, "audiovisual")}
                    yield TASKS[name], rates, call["inputs_embeds"], call["logits_tail"], call["labels"]
    elif "calls" in case:
        for rate, call in zip(case["rates"], case["calls"], strict=True):
            yield TASKS[modality], _rates(modality, rate), call.get("inputs_embeds"), call["logits_tail"], call["labels"]
    else:
        pass_ = case["model"].plan.all_passes()[0]
        yield pass_.task, pass_.rates, case["inputs_embeds"], case["logits"], case["labels"]


def _rates(modality, rate):
    return {"video": rate[0], "audio": rate[1]} if modality == "audiovisual" else {modality: rate}


def test_longest_row_of_a_training_batch(case, golden):
    """The first row needs no padding, so the official program's lack of masks does not show."""
    model, found = case["model"], 0
    features = _encode(case, golden, case["samples"], case.get("modality", "audiovisual"))
    for task, rates, embeds, logits, labels in _training_passes(case):
        inputs, _ = model.prepare(features, pass_=Pass(task, rates), text=_texts(labels))
        if embeds is not None:
            torch.testing.assert_close(inputs.inputs_embeds[0], embeds[0], **TOLERANCE)
        mine, last = _logits(model, inputs, Pass(task, rates))[0], logits.shape[1]
        torch.testing.assert_close(mine[-last:], logits[0], **TOLERANCE)
        assert torch.equal(inputs.labels[0, 1:], labels[0, 1:])
        losses = [cross_entropy(x[:-1], labels[0, 1 - last :]) for x in (mine[-last:], logits[0])]
        torch.testing.assert_close(*losses, **TOLERANCE)
        found += 1
    assert found


@pytest.mark.parametrize("case", [name for name in NAMES if name.startswith("llama_avsr_")], indirect=True)  # the others hold no such batch
def test_shorter_row_of_a_training_batch(case, golden):
    """Old: it keeps as many sound and video tokens as the longest row. New: what it has when decoded alone, in any batch."""
    model, pass_ = case["model"], case["model"].plan.all_passes()[0]
    row = 1
    alone = case["test"][case["samples"][row]]["inputs_embeds"][0]
    inputs, _ = model.prepare(_encode(case, golden, case["samples"], case["modality"]), pass_=pass_, text=_texts(case["labels"]))
    found = inputs.inputs_embeds[row][inputs.attention_mask[row] == 1]
    assert case["ignore_count"] + 1 > len(alone)
    torch.testing.assert_close(found[: len(alone)], alone, **TOLERANCE)


def test_decoding_of_every_sample(case, golden):
    model = case["model"]
    for key, expected in case["test"].items():
        pass_, sample, modality = _test_pass(case, key)
        inputs, _ = model.prepare(_encode(case, golden, [sample], modality), pass_=pass_)
        if "inputs_embeds" in expected:
            torch.testing.assert_close(inputs.inputs_embeds, expected["inputs_embeds"], **TOLERANCE)
        else:
            assert inputs.inputs_embeds.shape == expected["inputs_embeds_shape"]
        if "greedy_first_logits" in expected:
            torch.testing.assert_close(_logits(model, inputs, pass_)[:, -1], expected["greedy_first_logits"], **TOLERANCE)
        assert _greedy(model, inputs, pass_) == expected["greedy"].tolist()


def _test_pass(case, key):
    """The pass, sample and modality of a key of ``case["test"]``."""
    modality = case.get("modality")
    if isinstance(key, str):
        return case["model"].plan.all_passes()[0], key, modality
    if len(key) == 2:
        return Pass(TASKS[modality], _rates(modality, key[0])), key[1], modality
    modality, audio, video, sample = key
    return Pass(TASKS[modality], {s: r for s, r in (("audio", audio), ("video", video)) if r}), sample, modality
