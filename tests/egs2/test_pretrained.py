"""The mini recipe's shipped frozen parts load through the package, are small, and can be made anew by local/pretrain.sh."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

from espnet2_avsr_llm.data.roi.models import model_dir
from espnet2_avsr_llm.frontend.avhubert import AVHubertFrontend
from espnet2_avsr_llm.frontend.whisper import WhisperFrontend
from espnet2_avsr_llm.llm.tokens import PROMPTS

RECIPE = Path(__file__).parents[2] / "egs2" / "mini_av" / "avsr_llm1"
PARTS = RECIPE / "pretrained"


def test_all_parts_together_are_small():
    files = [path for path in PARTS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} >= {"whisper", "avhubert", "llama"}
    assert sum(path.stat().st_size for path in files) <= 12_000_000


def check_whisper(folder: Path):
    from transformers import WhisperFeatureExtractor

    frontend = WhisperFrontend(str(folder))
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    assert extractor.n_samples == frontend.max_inputs == 4 * 16000
    features, lengths = frontend(speech=(torch.randn(2, 16000), torch.tensor([16000, 8000])))["audio"]
    assert lengths.tolist() == [50, 25] and features.isfinite().all() and features.dtype == torch.float32


def check_avhubert(folder: Path):
    frontend = AVHubertFrontend(str(folder))
    features, lengths = frontend(video=(torch.zeros(2, 9, 88, 88, dtype=torch.uint8), torch.tensor([9, 4])))["video"]
    assert lengths.tolist() == [9, 4] and features.isfinite().all() and features.dtype == torch.float32


def check_llama(folder: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert tokenizer.is_fast and model.config.model_type == "llama"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (model.config.bos_token_id, model.config.eos_token_id)
    for text in ["bin blue at f two now", *PROMPTS.values(), "Anything else, Größe 12!"]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len(tokenizer("bin blue at f two now", add_special_tokens=False)["input_ids"]) == 6
    assert model(torch.tensor([ids])).logits.isfinite().all()


@pytest.mark.parametrize("check", [check_whisper, check_avhubert, check_llama])
def test_shipped_parts_load(check):
    check(PARTS / check.__name__.removeprefix("check_"))


def test_pretraining_runs_in_miniature(tmp_path):
    if not any(model_dir().glob("*.tflite")):
        pytest.skip(f"no face landmark models in {model_dir()}: `avsr-llm roi_models` fetches them")
    options = {"clips": 6, "speakers": 3, "held_out": 1, "voices": 2, "steps": 2, "nj": 1, "work": tmp_path / "work", "out": tmp_path / "parts"}
    command = ["local/pretrain.sh", *(str(x) for name, value in options.items() for x in (f"--{name}", value))]
    done = subprocess.run(command, cwd=RECIPE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for check in (check_whisper, check_avhubert, check_llama):
        check(tmp_path / "parts" / check.__name__.removeprefix("check_"))
    assert json.loads((tmp_path / "parts" / "avhubert" / "config.json").read_text())["model_type"] == "avhubert"
