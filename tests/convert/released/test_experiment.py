"""The converted folder in use: Speech2Text reads it wherever it lies, training starts from it, and what was trained goes back."""

import numpy as np
import pytest
import torch
import yaml

from espnet2_avsr_llm.bin import convert
from espnet2_avsr_llm.convert.released import Options, convert_released, to_released
from espnet2_avsr_llm.inference.speech2text import Speech2Text
from espnet2_avsr_llm.task import AVSRLLMTask

SPEECH = np.random.default_rng(0).standard_normal(16000).astype(np.float32)


@pytest.fixture(scope="module")
def experiment(make_authors, tmp_path_factory):
    """The folder, its state dict, and the model."""
    authors, root = make_authors("omni_t_pool"), tmp_path_factory.mktemp("experiment")
    state = authors.state()
    torch.save(state, root / "released.pth")
    model = convert_released(root / "released.pth", root / "a" / "exp", Options(**authors.options(root)))
    return root / "a" / "exp", state, model


def decode(folder):
    video = np.random.default_rng(1).integers(0, 256, (25, 96, 96), dtype=np.uint8)
    return Speech2Text(folder / "config.yaml", folder / "model.pth", max_tokens_per_second=6)(speech=SPEECH, video=video)[0][2]


def test_speech2text_reads_it_where_it_is_and_where_it_was_moved(experiment, tmp_path):
    folder, _, _ = experiment
    ids = decode(folder)
    assert ids
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    try:
        assert decode(moved) == ids
    finally:
        moved.rename(folder)


def test_training_starts_from_it_and_goes_back(experiment, train_command, tmp_path):
    """One epoch from ``--init_param``: what is trained moves, nothing else does, and the authors' layout takes it."""
    folder, state, model = experiment
    config = yaml.safe_load((folder / "config.yaml").read_text())
    AVSRLLMTask.main(cmd=train_command(tmp_path / "exp", config, "--max_epoch", 1, "--init_param", folder / "model.pth", "--batch_bins", 900))
    trained = torch.load(tmp_path / "exp" / "latest.pth", weights_only=True)
    before = torch.load(folder / "model.pth", weights_only=True)
    moved = {name for name, t in before.items() if not torch.equal(t, trained[name])}
    assert moved and all("lora" in name or "projector" in name for name in moved)
    assert max((before[n] - trained[n]).abs().max() for n in moved) < 0.1  # it started from the converted values
    back = to_released(folder, tmp_path / "exp" / "latest.pth")
    changed = {name for name, t in state.items() if not torch.equal(back[name], t)}
    assert changed and all("lora" in name or "_proj" in name for name in changed) and len(changed) == len(moved)


def test_programs(make_authors, tmp_path, capsys):
    """``avsr-llm convert`` there and back; it says what it inferred, and the kind of model is checked."""
    authors = make_authors("mtsk_asr_pool")
    state, options = authors.state(), authors.options(tmp_path)
    torch.save(state, tmp_path / "released.pth")
    common = ["--llm", options["llm"], "--audio_encoder", "{encoder_attention_heads: 2}", "--rates", "audio=4,8,12"]
    convert.main(["mtsk", str(tmp_path / "released.pth"), str(tmp_path / "exp"), *common, "--released"])
    told = capsys.readouterr().out
    assert "projector: mlp_bank" in told and "model 27" in told and "released_lengths: true" in told
    convert.main(["to_released", str(tmp_path / "exp"), str(tmp_path / "back.pth")])
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert list(back) == list(state) and all(torch.equal(back[n], t) for n, t in state.items())
    with pytest.raises(SystemExit, match="holds a model of mtsk by its keys, not of smop"):
        convert.main(["smop", str(tmp_path / "released.pth"), str(tmp_path / "other"), *common])
    with pytest.raises(SystemExit, match="has no released.json"):
        convert.main(["to_released", str(tmp_path), str(tmp_path / "back.pth")])
