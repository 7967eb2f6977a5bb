"""WavLM, HuBERT, wav2vec 2.0 and data2vec from the Hugging Face hub: arXiv:2110.13900, 2106.07447, 2006.11477, 2202.03555.

Shapes: `B` batch, `S` samples at 16 kHz, `T` features at 50 Hz, `F` feature width, `C` channels of the convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from espnet2_avsr_llm.frontend.abs_frontend import AbsFrontend, Lengthed, valid_mask
from espnet2_avsr_llm.hub.build import from_folder, read_config
from espnet2_avsr_llm.hub.resolve import SourceError

FAMILIES = ("wavlm", "hubert", "wav2vec2", "data2vec-audio")


class HFSpeechFrontend(AbsFrontend):
    """Encoder of the wav2vec 2.0 family: convolutions over the waveform, then a transformer that looks at no padding.

    The released Llama-AVSR program gives WavLM no mask, so that its features depend on the padding of the batch. Here they do not.

    Args:
        source, init, arch, revision, dtype, lora, device: as of :class:`AbsFrontend`.

    Raises:
        SourceError: the source is missing, damaged, or of another family.
    """

    inputs = ("speech",)

    def __init__(
        self,
        source: str | None = None,
        init: str = "pretrained",
        arch: str | None = None,
        revision: str | None = None,
        dtype: str = "float32",
        lora: Mapping | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__(source, init, arch, revision, dtype, lora, device)
        self.streams = {"audio": self.encoder.config.hidden_size}
        self._valid: Tensor | None = None
        for layer in getattr(self.encoder.encoder.pos_conv_embed, "layers", []):  # data2vec stacks several convolutions
            layer.register_forward_hook(lambda *call: call[-1] * self._valid)

    def num_frames(self, stream: str, counts: Mapping[str, int]) -> int:
        """Features of a clip: positions at which every convolution is full."""
        config, number = self.encoder.config, counts.get("speech", 0)
        for kernel, stride in zip(config.conv_kernel, config.conv_stride):
            number = max(0, (number - kernel) // stride + 1)
        return number

    def forward(self, speech: Lengthed) -> dict[str, Lengthed]:
        """Encode.

        Args:
            speech: ``(B, S)`` waveforms at 16 kHz, normalised per utterance, and their lengths ``(B,)`` in samples. What lies
                beyond a length is ignored.

        Returns:
            ``{"audio": (features (B, T, F), lengths (B,))}`` with ``T`` the longest length of the batch.
        """
        wave, samples = speech
        frames = torch.tensor([self.num_frames("audio", {"speech": n}) for n in samples.tolist()], device=samples.device)
        features = wave.new_zeros(len(wave), int(frames.max()), self.streams["audio"], dtype=self.dtype)
        rows = frames.nonzero().flatten()
        if len(rows):
            valid = valid_mask(frames[rows], features.size(1))
            x = self._convolve(wave[rows].to(self.dtype), samples[rows]).transpose(1, 2)[:, : features.size(1)]
            x = self.encoder.feature_projection(x)
            x = x[0] if isinstance(x, tuple) else x  # all but HuBERT give the unprojected features too
            self._valid = valid[:, None]
            x = self.encoder.encoder(x, attention_mask=valid).last_hidden_state
            features = features.index_copy(0, rows, x * valid.unsqueeze(-1))
        return {"audio": (features, frames)}

    def _convolve(self, wave: Tensor, samples: Tensor) -> Tensor:
        """(B, C, T). A first convolution whose group norm runs over time must see one utterance and nothing else."""
        if getattr(self.encoder.config, "feat_extract_norm", "layer") == "layer":
            return self.encoder.feature_extractor(wave * valid_mask(samples, wave.size(1)))
        convolved = [self.encoder.feature_extractor(row[None, :n])[0].T for row, n in zip(wave, samples.tolist())]
        return nn.utils.rnn.pad_sequence(convolved, batch_first=True).transpose(1, 2)

    @staticmethod
    def load(folder: str, dtype: torch.dtype) -> nn.Module:
        """The model of a folder."""
        from transformers import AutoConfig, AutoModel

        _check(read_config(folder))
        config = _unmasked(AutoConfig.from_pretrained(folder))
        return _linear(from_folder(AutoModel, folder, config=config, dtype=dtype))

    @staticmethod
    def random(config: dict) -> nn.Module:
        """The model that a configuration describes."""
        from transformers import AutoConfig, AutoModel

        _check(config)
        facts = {k: v for k, v in config.items() if k != "model_type"}
        return _linear(AutoModel.from_config(_unmasked(AutoConfig.for_model(config["model_type"], **facts))))


class LinearAttention(WavLMAttention):
    """WavLM's attention by its linear layers; transformers hands their weights to one fused function, past any LoRA on them."""

    def torch_multi_head_self_attention(self, hidden_states: Tensor, attention_mask: Tensor | None, gated_position_bias: Tensor, *_):
        """Attention with the gated relative position bias ``(B * heads, T, T)``; no attention weights (older versions may ask for them)."""
        split = partial(torch.unflatten, dim=-1, sizes=(self.num_heads, -1))
        q, k, v = (split(p(hidden_states)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        bias = gated_position_bias.unflatten(0, (-1, self.num_heads)).to(q.dtype)
        if attention_mask is not None:
            bias = bias.masked_fill(attention_mask.ne(1)[:, None, None], torch.finfo(q.dtype).min)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None


def _linear(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if type(module) is WavLMAttention:
            module.__class__ = LinearAttention
    return model


def _check(config: dict) -> None:
    if config.get("model_type") not in FAMILIES:
        raise SourceError(f"The configuration says model_type {config.get('model_type')!r}, expected one of {', '.join(FAMILIES)}")
    if config.get("add_adapter"):
        raise SourceError("The configuration has add_adapter: true, which changes the frame rate; such models are not supported")


def _unmasked(config):
    """Without SpecAugment, and so without its mask embedding, which fine-tuned models often lack."""
    config.mask_time_prob = config.mask_feature_prob = 0.0
    return config
