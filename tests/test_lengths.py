"""Token counts without running anything equal the lengths of the sequences that the model lays out."""

import pytest

from espnet2_avsr_llm.lengths import count_tokens


@pytest.mark.parametrize("samples,frames,letters", [(16000, 25, 5), (31234, 7, 1), (9999, 33, 9), (0, 13, 2), (6400, 0, 3)])
@pytest.mark.parametrize("compression", ["stack", "avg_pool"])
def test_count_equals_layout(make_model, make_batch, compression, samples, frames, letters):
    model = make_model(compression=compression)
    batch = make_batch((samples, frames, letters))
    (pass_,) = model.plan.passes()
    inputs, _ = model.prepare(model.encode(model.inputs(batch)), pass_, (batch["text"], batch["text_lengths"]))
    task = {(True, True): "avsr", (False, True): "vsr", (True, False): "asr"}[bool(samples), bool(frames)]
    counted = {s: f.num_frames(s, {"speech": samples, "video": frames}) for f in model.frontends.values() for s in f.streams}
    count = count_tokens(pass_, counted, len(model.llm.tokens.prompt_ids(task)))
    assert count.total(letters) == inputs.attention_mask.sum()
    decoding, _ = model.prepare(model.encode(model.inputs(batch)), pass_)
    assert count.prefix == decoding.attention_mask.sum()
