"""Where this program deviates from the released ones on purpose: what they did, and what is done here (system specification 0.9, 10)."""

from functools import cache

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from espnet2_avsr_llm.convert import load_released
from espnet2_avsr_llm.pass_plan import Pass

LONG, SHORT = 30, 26  # frames of video; their sound covers 60 and 52 Whisper features
TEXTS = [[70, 71, 72, 73], [80, 81]]


@pytest.fixture(scope="module")
def released(make_authors, tmp_path_factory):
    """``released(name, **options)``: the authors' program of a case, its state dict, and the model made of it."""
    root = tmp_path_factory.mktemp("deviations")

    @cache
    def make(name, **options):
        authors = make_authors(name)
        (root / name).mkdir(exist_ok=True)
        state = authors.state()
        torch.save(state, root / "released.pth")
        model, _ = load_released(root / "released.pth", **authors.options(root / name), **options)
        return authors, state, model

    return make


def rows(name):
    """A long and a short input."""
    generator = torch.Generator().manual_seed(3)
    shapes = {"speech": lambda n: (n * 640,), "video": lambda n: (n, 88, 88)}
    return [torch.randn(shapes[name](n), generator=generator) for n in (LONG, SHORT)]


def prepare(model, name, chosen, texts):
    """The LLM's input of a batch of some of the rows."""
    batch = {name: pad_sequence(chosen, batch_first=True), f"{name}_lengths": torch.tensor([len(x) for x in chosen])}
    text = pad_sequence([torch.tensor(t) for t in texts], batch_first=True), torch.tensor([len(t) for t in texts])
    with torch.no_grad():
        return model.prepare(model.encode(model.inputs(batch)), pass_=model.plan.all_passes()[0], text=text)[0]


@torch.no_grad()
def loss(model, prepared, row):
    with model.use(model.plan.all_passes()[0], prepared.attention_mask):
        logits = model.llm(prepared.inputs_embeds, prepared.attention_mask, prepared.position_ids, prepared.inputs_embeds.shape[1]).logits
    return cross_entropy(logits[row, :-1], prepared.labels[row, 1:])


@pytest.mark.parametrize("name, case, stream", [("speech", "asr_rate1_nolora_untied", "audio"), ("video", "vsr_pool5_norm_encoderlora", "video")])
def test_padding_of_a_batch(released, name, case, stream):
    """Old: the shorter row keeps as many tokens as the longest, encoded from its padding and attended by the LLM. New: only its own."""
    authors, state, model = released(case)
    long, short = rows(name)
    rate, task = authors.case.rates[stream][0], model.plan.all_passes()[0].task
    padded = torch.cat([short, short.new_zeros(len(long) - len(short), *short.shape[1:])])
    theirs = {kind: authors.features(state, {name: x})[stream] for kind, x in (("alone", short), ("batch", padded))}
    assert len(theirs["batch"]) > len(theirs["alone"])
    old, _ = authors.run(state, {stream: theirs["batch"]}, task, {stream: rate}, TEXTS[1])
    alone, logits = authors.run(state, {stream: theirs["alone"]}, task, {stream: rate}, TEXTS[1])
    together = prepare(model, name, [long, short], TEXTS)
    new = together.inputs_embeds[1][together.attention_mask[1] == 1]
    assert len(old) > len(alone) == len(new)  # sliced padding
    torch.testing.assert_close(new, alone, atol=1e-4, rtol=0)
    by_itself = prepare(model, name, [short], TEXTS[1:])
    torch.testing.assert_close(loss(model, together, 1), loss(model, by_itself, 0), atol=1e-4, rtol=0)  # masked
    text = torch.tensor([*TEXTS[1], authors.tokenizer.eos_token_id])
    torch.testing.assert_close(loss(model, by_itself, 0), cross_entropy(logits[-len(text) - 1 : -1], text), atol=1e-4, rtol=0)


def test_video_features_saw_their_padding(released):
    """Old: AV-HuBERT attends to the padded frames of a batch, so features of the real ones change. New: masked."""
    authors, state, model = released("vsr_pool5_norm_encoderlora")
    _, short = rows("video")
    padded = torch.cat([short, torch.zeros(4, 88, 88)])
    alone, in_batch = (authors.features(state, {"video": x})["video"][:SHORT] for x in (short, padded))
    assert (alone - in_batch).abs().max() > 0.01
    batch = {"video": padded[None], "video_lengths": torch.tensor([SHORT])}
    with torch.no_grad():
        torch.testing.assert_close(model.encode(model.inputs(batch))["video"][0][0], alone, atol=1e-4, rtol=0)


def test_video_is_cut_before_the_encoder(released):
    """Old: AV-HuBERT sees whole rate steps only. New: it sees all frames, and compression drops the rest, unless ``released=True``."""
    authors, state, exact = released("vsr_pool5_norm_encoderlora")
    _, _, as_released = released("vsr_pool5_norm_encoderlora", released=True)
    _, short = rows("video")
    old, new = (authors.features(state, {"video": x})["video"] for x in (short[:25], short))
    assert (old - new[:25]).abs().max() > 0.01
    batch = {"video": torch.stack([short, short]), "video_lengths": torch.tensor([SHORT, SHORT])}
    for model, expected in ((exact, new), (as_released, old)):
        with torch.no_grad():
            features, lengths = model.encode(model.inputs(batch))["video"]
        assert lengths.tolist() == [len(expected)] * 2 and model.frontends["video_frontend"].num_frames("video", {"video": SHORT}) == len(expected)
        torch.testing.assert_close(features[1], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("samples, old, new", [(6400, 25, 20), (16960, 52, 53), (33600, 104, 105), (16000, 50, 50)])
def test_number_of_whisper_features(released, samples, old, new):
    """Old: 25 at least, and counted in float32, one too few for some lengths. New: one per 320 samples, unless ``released=True``."""
    _, _, exact = released("asr_rate1_nolora_untied")
    _, _, as_released = released("asr_rate1_nolora_untied", released=True)
    speech = torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
    for model, expected in ((exact, new), (as_released, old)):
        features, lengths = model.frontends["audio_frontend"](speech=(speech, torch.tensor([samples])))["audio"]
        assert lengths.tolist() == [expected] and features.shape[1] == expected
        assert features[0, -1].abs().max() > 0.1  # of silence, where the clip is shorter than the floor


def test_pads_of_qwen_were_labels(released):
    """Old: Qwen's pads are its EOS, and were not masked: the model learns to go on writing EOS. New: one EOS is scored."""
    authors, _, model = released("omni_st_qwen")
    eos = authors.tokenizer.eos_token_id
    old = authors.tokenizer.pad([{"input_ids": [*t, eos]} for t in TEXTS], return_tensors="pt")["input_ids"]
    assert (old == eos).sum(1).tolist() == [1, 3]  # all of them labels, as no padding token was found to mask
    speech = [x for x in rows("speech")]
    batch = {"speech": pad_sequence(speech, batch_first=True), "speech_lengths": torch.tensor([len(x) for x in speech])}
    batch |= {"video": torch.zeros(2, 0, 88, 88), "video_lengths": torch.zeros(2, dtype=torch.long)}
    text = pad_sequence([torch.tensor(t) for t in TEXTS], batch_first=True, padding_value=eos), torch.tensor([len(t) for t in TEXTS])
    with torch.no_grad():
        prepared, _ = model.prepare(model.encode(model.inputs(batch)), pass_=Pass("asr", {"audio": 4}), text=text)
    assert (prepared.labels == eos).sum(1).tolist() == [1, 1]


def test_zero_db():
    """Old: ``[snr] if snr else TRAINING_LEVELS``, so that a test at 0 dB ran at random levels. New: 0 dB is 0 dB."""
    import numpy as np

    from espnet2_avsr_llm.data.noise import mix

    old = lambda snr: [snr] if snr else [-5, 0, 5, 10, 15, 20, 999999]  # noqa: E731
    assert old(5) == [5] and len(old(0)) == 7
    rng = np.random.default_rng(0)
    speech, noise = rng.standard_normal(16000).astype(np.float32), rng.standard_normal(16000).astype(np.float32) * 3
    added = mix(speech, noise, 0) - speech
    assert 10 * np.log10(np.mean(speech**2) / np.mean(added**2)) == pytest.approx(0, abs=0.01)
