"""What all tests share: repeatable hypothesis draws, tiny pretrained parts in their true formats, configurations, batches."""

import importlib.util
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach the network

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("repeatable")

RATES = {"audio": 4, "video": 2}
STREAMS = {"asr": ("audio",), "vsr": ("video",), "avsr": ("audio", "video")}
AVHUBERT = dict(
    model_type="avhubert",
    encoder_embed_dim=16,
    encoder_layers=1,
    encoder_attention_heads=2,
    encoder_ffn_embed_dim=32,
    trunk_widths=[4, 4, 8, 8],
    conv_pos=8,
    conv_pos_groups=2,
    dropout=0.1,
    dropout_input=0.1,
)


def make_whisper(folder, seconds=3.0):
    """A Whisper encoder with a short window, as transformers saves it."""
    import torch
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.manual_seed(1)
    sizes = dict(d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=32, num_mel_bins=80, init_std=0.2)
    WhisperEncoder(WhisperConfig(max_source_positions=int(50 * seconds), **sizes)).save_pretrained(folder)
    return str(folder)


def make_avhubert(folder):
    """An AV-HuBERT folder."""
    import torch
    from safetensors.torch import save_file

    from espnet2_avsr_llm.frontend.avhubert import AVHubertFrontend

    torch.manual_seed(2)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(AVHubertFrontend.random(AVHUBERT).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(AVHUBERT))
    return str(folder)


def make_llama(folder, seed=3, dtype="float32", **config):
    """A Llama folder with a byte tokenizer; large random weights, so that an error anywhere in the input shows in the logits."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from espnet2_avsr_llm.llm.tokens import byte_tokenizer

    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    sizes = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    ids = dict(vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    model = LlamaForCausalLM(LlamaConfig(**{**sizes, **ids, "initializer_range": 0.2, "tie_word_embeddings": False, **config}))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def golden():
    """``load.py`` of the official programs' reference vectors."""
    folder = os.environ.get("AVSR_GOLDEN")
    if not folder:
        pytest.skip("AVSR_GOLDEN, the folder of the official programs' reference vectors, is not set")
    spec = importlib.util.spec_from_file_location("golden_load", os.path.join(folder, "load.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Folders of a tiny Whisper (3-s window), AV-HuBERT and Llama."""
    root = tmp_path_factory.mktemp("sources")
    return {"whisper": make_whisper(root / "whisper"), "avhubert": make_avhubert(root / "avhubert"), "llama": make_llama(root / "llama")}


@pytest.fixture(scope="session")
def make_source():
    """The makers of source folders, by name."""
    return {"whisper": make_whisper, "avhubert": make_avhubert, "llama": make_llama}


@pytest.fixture(scope="session")
def tiny_config(sources):
    """``tiny_config(task, compression, passes=..., plan=(name, conf), PART_conf={...})``: a configuration of the tiny parts."""
    from espnet2_avsr_llm.pass_plan import PLANS

    def make(task="avsr", compression="stack", passes=None, plan=None, **confs):
        passes = passes or [{"task": task, "rates": {s: RATES[s] for s in STREAMS[task]}}]
        plan, plan_conf = plan or ("fixed", {"passes": passes})
        streams = PLANS[plan](**plan_conf).rates()
        config = {
            "audio_frontend": "whisper" if "audio" in streams else None,
            "audio_frontend_conf": {"source": sources["whisper"]},
            "video_frontend": "avhubert" if "video" in streams else None,
            "video_frontend_conf": {"source": sources["avhubert"]},
            "compression": compression,
            "compression_conf": {},
            "projector": "mlp",
            "projector_conf": {"hidden_size": 24},
            "llm": "causal_lm",
            "llm_conf": {"source": sources["llama"], "dtype": "float32"},
            "adapter": "lora",
            "adapter_conf": {} if "adapter" in confs else {"rank": 2, "scale": 1.0},
            "plan": plan,
            "plan_conf": plan_conf,
            "losses": [],
            "losses_conf": {},
        }
        for key, value in confs.items():
            config[key] = {**config[key], **value} if isinstance(value, dict) else value
        return config

    return make


@pytest.fixture(scope="session")
def make_model(tiny_config):
    """``make_model(...)`` as ``tiny_config``, with every trained tensor drawn away from its start (LoRA's B starts at zero)."""
    import torch

    from espnet2_avsr_llm.build import build
    from espnet2_avsr_llm.espnet_model import ESPnetAVSRLLMModel

    def make(*args, seed=0, **kwargs):
        model = build(tiny_config(*args, **kwargs), ESPnetAVSRLLMModel)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.copy_(torch.randn(p.shape, generator=generator) * 0.3)
        return model.train()

    return make


def sample(row, samples=None, frames=None, letters=3):
    """Input arrays of one utterance, the same for the same ``row`` and sizes; None leaves a modality out altogether."""
    rng = np.random.default_rng(row)
    data = {}
    if samples is not None:
        data["speech"] = rng.standard_normal(samples).astype(np.float32)
    if frames is not None:
        data["video"] = rng.integers(0, 256, (frames, 88, 88), dtype=np.uint8)
    return data | {"text": rng.integers(2, 258, letters)}


@pytest.fixture(scope="session")
def make_sample():
    """``make_sample(row, samples, frames, letters)``."""
    return sample


@pytest.fixture(scope="session")
def make_batch():
    """``make_batch((samples, frames, letters), ...)``: a collated batch; the content of a row depends on its sizes alone."""
    from espnet2_avsr_llm.data.collate import collate
    from espnet2_avsr_llm.data.filterbank import stacked_filterbanks

    def make(*sizes, filterbanks=False):
        rows = [sample(sum(n or 0 for n in size), *size) for size in sizes]
        if filterbanks:
            rows = [row | {"speech": stacked_filterbanks(row["speech"])} for row in rows]
        return collate([(str(i), row) for i, row in enumerate(rows)])[1]

    return make


DATA = {"train": 8, "valid": 3}
WORDS = "bin blue at f two now".split()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Dumped data directories ``train`` and ``valid`` of random sound and mouths, 0.4 to 0.8 s; their parent folder."""
    import soundfile

    from espnet2_avsr_llm.data.media import write_roi

    root, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    for name, count in DATA.items():
        lines = {k: [] for k in ("wav.scp", "video.scp", "text", "utt2num_samples", "utt2num_frames")}
        for i in range(count):
            utt, frames = f"{name}{i:02d}", int(rng.integers(10, 20))
            wav, video = root / name / "data" / f"{utt}.flac", root / name / "data" / f"{utt}.mp4"
            wav.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(wav, rng.normal(0, 0.1, frames * 640).astype(np.float32), 16000)
            write_roi(video, rng.integers(0, 256, (frames, 96, 96), dtype=np.uint8))
            text = " ".join(rng.choice(WORDS, 1 + i % 2))
            for key, value in zip(lines, (wav, video, text, frames * 640, frames)):
                lines[key].append(f"{utt} {value}\n")
        for key, rows in lines.items():
            (root / name / key).write_text("".join(rows))
    return root


@pytest.fixture(scope="session")
def train_command(corpus, tmp_path_factory):
    """``train_command(out, config, options...)``: the arguments of a training run on the corpus."""
    import yaml

    from espnet2_avsr_llm.bin import make_shape

    def command(out, config, *options, shapes=None, video=None):
        folder = tmp_path_factory.mktemp("run")
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        args = ["--config", folder / "config.yaml", "--output_dir", out, "--resume", "true", "--num_workers", 0, "--ngpu", 0]
        args += ["--use_tensorboard", "false", "--use_matplotlib", "false", "--scheduler", "warmup_cosine", "--batch_bins", 250]
        for phase in ("train", "valid"):
            shape = shapes or folder / phase
            if shapes is None:
                make_shape.main(["--config", str(folder / "config.yaml"), "--data_dirs", str(corpus / phase), "--outs", str(shape)])
            args += [f"--{phase}_shape_file", shape]
            data = {"speech": ("wav.scp", "speech"), "video": ("video.scp", "video"), "text": ("text", "text")}
            streams = {"speech": config["audio_frontend"], "video": config["video_frontend"], "text": True}
            for name, (file, kind) in data.items():
                if streams[name]:
                    source = video if name == "video" and video else corpus / (("train" if shapes else phase)) / file
                    args += [f"--{phase}_data_path_and_name_and_type", f"{source},{name},{kind}"]
        return [str(a) for a in [*args, *options]]

    return command
