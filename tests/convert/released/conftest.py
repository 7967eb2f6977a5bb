"""Checkpoints laid out as the authors' programs write them, in many variants, and what those programs compute from them.

`Authors` restates a released program on its own state dict, one utterance at a time: LoRA is folded into the weights, projectors are
matrix products, the sequence is put together by ids. It shares nothing with the converter but encoders, which have tests of their own.
"""

import json
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

WHISPER = dict(model_type="whisper", d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32, num_mel_bins=80)
WHISPER |= dict(max_source_positions=150, init_std=0.2)
AVHUBERT = dict(model_type="avhubert", encoder_embed_dim=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_embed_dim=32)
AVHUBERT |= dict(trunk_widths=[4, 4, 8, 8], conv_pos=8, conv_pos_groups=2)
LLAMA = dict(model_type="llama", hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
LLAMA |= dict(rms_norm_eps=1e-5, rope_theta=500000.0, initializer_range=0.2, max_position_embeddings=4096)
PROMPTS = {
    "asr": ("prompt_audio", "Transcribe speech to text."),
    "vsr": ("prompt_video", "Transcribe video to text."),
    "avsr": ("prompt_audiovisual", "Transcribe speech and video to text."),
}
SUFFIXES = {"asr": ".audio", "vsr": ".video", "avsr": ".audiovisual"}
HIDDEN, SCALE, ENCODER_SCALE = 12, 0.125, 2.0
AUDIO, VIDEO, BOTH = {"audio_encoder": "whisper"}, {"video_encoder": "avhubert"}, {"audiovisual_encoder": "avhubert"}


@dataclass(frozen=True)
class Case:
    """A released model: its `rates`, whether they are stacking, whether each has a projector (`bank`), which streams' projectors
    have a LayerNorm, the suffixes of the LoRA names, and so on."""

    name: str
    rates: dict
    system: str = "llama_avsr"
    stack: bool = False
    bank: bool = False
    experts: int = 0
    norm: tuple = ()
    sets: tuple = ("",)
    encoders: dict = field(default_factory=lambda: AUDIO | VIDEO)
    encoder_lora: bool = False
    tied: bool = True
    qwen: bool = False


AV = ("audio", "video")
OMNI = dict(system="omni_avsr", rates={"audio": [4, 16], "video": [2, 5]}, encoder_lora=True)
CASES = [
    Case("asr_rate1_nolora_untied", {"audio": [1]}, encoders=AUDIO, sets=(), tied=False),
    Case("asr_pool16_norm", {"audio": [16]}, encoders=AUDIO, norm=AV),
    Case("asr_avhubert_stack3", {"audio": [3]}, stack=True, encoders={"audio_encoder": "avhubert"}),
    Case("vsr_pool5_norm_encoderlora", {"video": [5]}, encoders=VIDEO, norm=AV, encoder_lora=True),
    Case("avsr_stack_a4v1_norm_untied", {"audio": [4], "video": [1]}, stack=True, norm=AV, tied=False),
    Case("avsr_avhubert_joint_stack2", {"audiovisual": [2]}, stack=True, encoders=BOTH),
    Case("avsr_avhubert_two_passes", {"audio": [2], "video": [3]}, stack=True, encoders=BOTH, encoder_lora=True, norm=AV),
    Case("mtsk_asr_pool", {"audio": [4, 8, 12]}, system="mtsk", bank=True, encoders=AUDIO, norm=AV),
    Case("mtsk_vsr_stack_encoderlora", {"video": [1, 2, 3]}, system="mtsk", stack=True, bank=True, encoders=VIDEO, encoder_lora=True),
    Case("mtsk_coarse_rate_first", {"audio": [16, 4], "video": [5, 2]}, system="mtsk", bank=True, norm=AV),
    Case("omni_s_single_projector", **OMNI, norm=AV),
    Case("omni_t_pool", **OMNI, bank=True, sets=tuple(SUFFIXES.values())),
    Case("omni_st_stack_mixed_norm", **OMNI, bank=True, stack=True, sets=(*SUFFIXES.values(), "_shared"), norm=("audio",)),
    Case("omni_st_qwen", **OMNI, bank=True, sets=(*SUFFIXES.values(), "_shared"), qwen=True),
    Case("llama_mt", {"audio": [4], "video": [2]}, system="omni_avsr", norm=AV),
    Case("smop", {"audio": [4], "video": [2]}, system="smop", experts=4, norm=AV),
]


class Authors:
    """A released program: writes a state dict for a case, and computes from it."""

    def __init__(self, case: Case):
        from espnet2_avsr_llm.llm.tokens import byte_tokenizer

        self.case, self.tokenizer = case, qwen_tokenizer() if case.qwen else byte_tokenizer()
        self.own = len(self.tokenizer)
        self.added = ["<pad>", "<audio>", "</audio>", "<video>", "</video>"][case.qwen :]

    # ---- what it writes ----

    def folder(self, path):
        """The public LLM's folder: configuration and tokenizer, no weights. Qwen's vocabulary is larger than its tokenizer."""
        self.tokenizer.save_pretrained(path)
        config = self._llm_config() | {"vocab_size": 320 if self.case.qwen else self.own}
        (path / "config.json").write_text(json.dumps(config))
        return str(path)

    def options(self, path):
        """What the converter must be told."""
        case = self.case
        heads = {"whisper": WHISPER, "avhubert": {"encoder_attention_heads": 2}}
        sources = {"video_encoder" if p.startswith("audiov") else p: heads[k] for p, k in case.encoders.items()}
        rates = {} if case.stack else {"rates": {s: r if len(r) > 1 else r[0] for s, r in case.rates.items()}}
        return {"llm": self.folder(path), **sources, **rates}

    def state(self, seed=0, dtype=torch.float32):
        """A state dict of random weights."""
        torch.manual_seed(seed)
        state = {f"{prefix}.{n}": t.clone() for prefix, module in self._modules().items() for n, t in module.state_dict().items()}
        for name in [n for n in state if n.endswith(("running_mean", "running_var"))]:
            state[name] = torch.rand_like(state[name]) + 0.5
        for prefix in [p for p, kind in self.case.encoders.items() if kind == "avhubert"]:
            state |= {f"{prefix}.{n}": torch.randn(4, 16) for n in ("mask_emb", "final_proj.weight", "final_proj.bias", "label_embs_concat")}
            if self.case.encoder_lora:
                state |= self._draw_lora(state, f"{prefix}.encoder.layers", [""], rank=2)
        state |= self._draw_lora(state, "llm.model.layers", self.case.sets, rank=3)
        for prefix, size, norm in self._projectors():
            sizes = {"0.weight": (HIDDEN, size), "0.bias": (HIDDEN,), "2.weight": (16, HIDDEN), "2.bias": (16,)}
            sizes |= {"3.weight": (16,), "3.bias": (16,)} if norm else {}
            state |= {f"{prefix}.{n}": torch.randn(s) * 0.5 for n, s in sizes.items()}
        if self.case.experts:
            state["audiovisual_proj.gate.weight"] = torch.randn(self.case.experts, 16)
        if self.case.system == "omni_avsr":
            state |= {name: state["llm.model.embed_tokens.weight"][self.ids(text)][None] for name, text in PROMPTS.values()}
        return {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _llm_config(self):
        return {**LLAMA, **({"model_type": "qwen2"} if self.case.qwen else {}), "tie_word_embeddings": self.case.tied}

    def _modules(self):
        from transformers import AutoConfig, AutoModelForCausalLM

        from espnet2_avsr_llm.frontend import FRONTENDS

        parts = {p: FRONTENDS[k].random({"whisper": WHISPER, "avhubert": AVHUBERT}[k]) for p, k in self.case.encoders.items()}
        config = AutoConfig.for_model(**self._llm_config(), vocab_size=self.own + len(self.added))
        return {p: m.eval() for p, m in (parts | {"llm": AutoModelForCausalLM.from_config(config, dtype=torch.float32)}).items()}

    def _projectors(self):
        """(prefix, inputs, LayerNorm) of each projector."""
        case = self.case
        if case.experts:
            return [(f"audiovisual_proj.experts.{i}", 16, True) for i in range(case.experts)]
        return [
            (f"{stream}_proj" + f".{i}" * case.bank, 16 * rate**case.stack, stream in case.norm)
            for stream, rates in case.rates.items()
            for i, rate in enumerate(rates if case.bank else rates[:1])
        ]

    @staticmethod
    def _draw_lora(state, layers, suffixes, rank):
        drawn = {}
        for name in [n for n in state if n.startswith(layers) and n.endswith(("q_proj.weight", "v_proj.weight"))]:
            module, letter, (outputs, inputs) = name.rpartition(".")[0].rpartition(".")[0], name[-13].upper(), state[name].shape
            for s in suffixes:
                drawn |= {f"{module}.lora_down_{letter}{s}.weight": torch.randn(rank, inputs)}
                drawn |= {f"{module}.lora_up_{letter}{s}.weight": torch.randn(outputs, rank)}
        return drawn

    # ---- what it computes ----

    @torch.no_grad()
    def run(self, state, features, task, rates, text):
        """Input embeddings (N, D) and logits (N, V) of one utterance."""
        table = state["llm.model.embed_tokens.weight"]
        embed = lambda ids: table[torch.tensor(ids, dtype=torch.long)]  # noqa: E731
        added = {token: self.own + i for i, token in enumerate(self.added)}
        parts = [] if self.case.qwen else [embed([self.tokenizer.bos_token_id])]
        for stream, x in self._tokens(state, features, rates).items():
            ends = [] if stream == "audiovisual" else [[added[f"<{stream}>"]], [added[f"</{stream}>"]]]
            parts += [embed(ends[0]), x, embed(ends[1])] if ends else [x]
        embeds = torch.cat([*parts, embed(self.ids(PROMPTS[task][1])), embed(text), embed([self.tokenizer.eos_token_id])])
        llm = self._folded(state, "llm", SCALE, ("", "_shared", SUFFIXES[task]))
        return embeds, llm(inputs_embeds=embeds[None]).logits[0]

    def _folded(self, state, prefix, scale, suffixes):
        """The module with LoRA in its weights."""
        states = {n[len(prefix) + 1 :]: t.clone() for n, t in state.items() if n.startswith(f"{prefix}.")}
        for name in [n for n in states if "lora_down" in n]:
            module, _, letter_and_set = name.removesuffix(".weight").rpartition(".lora_down_")
            if letter_and_set[1:] in suffixes:
                up = states[name.replace("lora_down", "lora_up")]
                states[f"{module}.{letter_and_set[0].lower()}_proj.weight"] += scale * up @ states[name]
        module = self._modules()[prefix]
        module.load_state_dict({n: t for n, t in states.items() if n in module.state_dict()})
        return module

    def _tokens(self, state, features, rates):
        x = {stream: self._compress(features[stream], rates[stream]) for stream in ("audio", "video", "audiovisual") if stream in rates}
        if not self.case.experts:
            index = {s: f".{self.case.rates[s].index(rates[s])}" if self.case.bank else "" for s in x}
            return {s: self._project(state, f"{s}_proj{index[s]}", y) for s, y in x.items()}
        joined = torch.cat(list(x.values()))
        gates, choice = (joined @ state["audiovisual_proj.gate.weight"].T).softmax(-1).topk(2)
        outputs = torch.stack([self._project(state, f"audiovisual_proj.experts.{i}", joined) for i in range(self.case.experts)], 1)
        mixed = (outputs.gather(1, choice[..., None].expand(-1, -1, 16)) * (gates / gates.sum(-1, keepdim=True))[..., None]).sum(1)
        return dict(zip(x, mixed.split([len(y) for y in x.values()])))

    @torch.no_grad()
    def features(self, state, inputs):
        """Features (T, F) of each stream, of `inputs` without padding."""
        from espnet2_avsr_llm.frontend.whisper import LogMel

        encode = {prefix: self._folded(state, prefix, ENCODER_SCALE, ("",)) for prefix in self.case.encoders}
        features = {}
        for prefix, encoder in encode.items():
            if self.case.encoders[prefix] == "whisper":
                wave = inputs["speech"]
                mel = LogMel(80)(F.pad(wave, (0, 48000 - len(wave)))[None])
                features["audio"] = encoder(mel).last_hidden_state[0, : len(wave) // 320]
                continue
            given = {n: (x[None], torch.ones(1, len(x), dtype=torch.bool)) for n, x in inputs.items() if x.dim() > 1}
            runs = {"audio": (None, given.get("speech")), "video": (given.get("video"), None), "audiovisual": (given.get("video"), given.get("speech"))}
            wanted = {"video_encoder": {"video"}, "audio_encoder": {"audio"}}.get(prefix, set(self.case.rates))
            features |= {s: encoder(*runs[s])[0] for s in wanted}
        return features

    def _compress(self, x, rate):
        x = x[: len(x) // rate * rate]
        return x.reshape(len(x) // rate, -1) if self.case.stack else F.avg_pool1d(x.T[None], rate)[0].T

    @staticmethod
    def _project(state, prefix, x):
        y = F.linear(F.linear(x, state[f"{prefix}.0.weight"], state[f"{prefix}.0.bias"]).relu(), state[f"{prefix}.2.weight"], state[f"{prefix}.2.bias"])
        return F.layer_norm(y, (16,), state[f"{prefix}.3.weight"], state[f"{prefix}.3.bias"]) if f"{prefix}.3.weight" in state else y


def qwen_tokenizer():
    """Bytes and one special token, which ends and pads: Qwen's tokenizer has no BOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {c: i for i, c in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


@pytest.fixture(scope="session", params=CASES, ids=lambda case: case.name)
def authors(request):
    """A released program, for each case."""
    return Authors(request.param)


@pytest.fixture(scope="session")
def make_authors():
    """``make_authors(name, **changes)``: the program of one case."""
    from dataclasses import replace

    cases = {case.name: case for case in CASES}
    return lambda name, **changes: Authors(replace(cases[name], **changes))


@pytest.fixture(scope="session")
def converted(authors, tmp_path_factory):
    """The program, its state dict, and the experiment and model that were made of it."""
    from espnet2_avsr_llm.convert.released import Options, convert_released

    root = tmp_path_factory.mktemp("released")
    state = authors.state()
    torch.save(state, root / "released.pth")
    options = Options(**authors.options(root))
    model = convert_released(root / "released.pth", root / "experiment", options, authors.case.system).eval()
    return SimpleNamespace(authors=authors, state=state, folder=root / "experiment", model=model, options=options, file=root / "released.pth")
