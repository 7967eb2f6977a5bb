"""Whisper encoder as an audio frontend: Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, arXiv:2212.04356.

Shapes: `B` batch, `S` samples at 16 kHz, `W` samples of the window, `M` mel bands, `T` features at 50 Hz, `F` feature width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from espnet2_avsr_llm.frontend.abs_frontend import AbsFrontend, Lengthed
from espnet2_avsr_llm.hub.build import build, torch_dtype
from espnet2_avsr_llm.hub.resolve import SourceError

SAMPLE_RATE = 16000
FFT, HOP = 400, 160  # 25 ms and 10 ms
SAMPLES_PER_FRAME = 320  # the encoder's second convolution halves the 100 mel frames of a second


def released_frames(num_samples: int) -> int:
    """Features that the released programs keep: at least 25, counted in float32, so one too few for some lengths (spec section 10, item 10)."""
    return max(int(torch.tensor(num_samples) / SAMPLE_RATE * 50), 25) if num_samples else 0


class LogMel(nn.Module):
    """Log-mel spectrogram equal to ``WhisperFeatureExtractor``, computed where the model is."""

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        from transformers.audio_utils import mel_filter_bank

        filters = mel_filter_bank(FFT // 2 + 1, n_mels, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
        self.register_buffer("filters", torch.tensor(filters.T, dtype=torch.float32), persistent=False)

    @torch.autocast("cuda", enabled=False)
    def forward(self, speech: Tensor) -> Tensor:
        """
        Args:
            speech: ``(B, W)`` float, zero-padded to the window.

        Returns:
            ``(B, M, W / 160)`` float32, in about [-1, 1.5]; the floor of 8 bels is relative to each row's maximum.
        """
        speech = speech.float()
        spectrum = torch.stft(speech, FFT, HOP, window=torch.hann_window(FFT, device=speech.device), return_complex=True)
        mel = self.filters.float() @ spectrum[..., :-1].abs().square()
        log = mel.clamp(min=1e-10).log10()
        return (log.maximum(log.amax(dim=(1, 2), keepdim=True) - 8.0) + 4.0) / 4.0


class WhisperFrontend(AbsFrontend):
    """Encoder of a Hugging Face Whisper model on its full window (30 s for the public ones), features cut to each length.

    Args:
        source: folder or hub id of a Whisper model (full model or encoder alone).
        init: ``pretrained`` reads ``source``; ``random`` builds ``arch`` without weights.
        arch: name of ``arch/*.json``, for ``init="random"``.
        revision: branch, tag or commit of a hub id.
        dtype: of the encoder; the log-mel features are float32.
        released_lengths: keep as many features as the released programs do (:func:`released_frames`), the first ones after a
            very short clip being those of its zero padding. Here the count is exact by default and has no floor.

    Raises:
        SourceError: the source is missing or is no Whisper model.
    """

    inputs = ("speech",)

    def __init__(
        self,
        source: str | None = None,
        init: str = "pretrained",
        arch: str | None = None,
        revision: str | None = None,
        dtype: str = "float32",
        released_lengths: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, origin = build(source, init, arch, revision, torch_dtype(dtype), _load, _random)
        self.adopt("encoder", self.encoder, origin, revision)
        config = self.encoder.config
        self.max_inputs = config.max_source_positions * SAMPLES_PER_FRAME
        self.log_mel = LogMel(config.num_mel_bins)
        self.streams = {"audio": config.d_model}
        if released_lengths:
            self.num_frames = released_frames
        self.eval()

    @staticmethod
    def num_frames(num_inputs: int) -> int:
        """Features of a clip of ``num_inputs`` samples: one per full 320 samples."""
        return num_inputs // SAMPLES_PER_FRAME

    def forward(self, speech: Lengthed) -> dict[str, Lengthed]:
        """Encode.

        Args:
            speech: ``(B, S)`` waveforms at 16 kHz, normalised per utterance, and their lengths ``(B,)`` in samples. What lies
                beyond a length is ignored.

        Returns:
            ``{"audio": (features (B, T, F), lengths (B,))}`` with ``T`` the longest length of the batch.

        Raises:
            ValueError: a clip is longer than the window.
        """
        wave, samples = speech
        self._check(samples)
        frames = torch.tensor([self.num_frames(n) for n in samples.tolist()], device=samples.device)
        features = wave.new_zeros(len(wave), int(frames.max()), self.streams["audio"], dtype=self.encoder.dtype)
        rows = frames.nonzero().flatten()
        if len(rows):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                encoded = self._encode(wave[rows], samples[rows])[:, : features.size(1)]
            valid = torch.arange(features.size(1), device=wave.device) < frames[rows, None]
            features = features.index_copy(0, rows, encoded * valid.unsqueeze(-1))
        return {"audio": (features, frames)}

    def _check(self, samples: Tensor) -> None:
        longest = int(samples.max())
        if longest > self.max_inputs:
            raise ValueError(
                f"A clip of {longest / SAMPLE_RATE:.2f} s (row {int(samples.argmax())}) does not fit the {self.max_inputs / SAMPLE_RATE:g}-s "
                "window of this Whisper model. Decode long recordings with Speech2Text, which windows them, or drop the clip in stage 4"
            )

    def _encode(self, wave: Tensor, samples: Tensor) -> Tensor:
        wave = wave[:, : self.max_inputs]
        wave = wave * (torch.arange(wave.size(1), device=wave.device) < samples[:, None])
        mel = self.log_mel(nn.functional.pad(wave, (0, self.max_inputs - wave.size(1))))
        return self.encoder(mel.to(self.encoder.dtype)).last_hidden_state


def _load(folder: str, dtype: torch.dtype) -> nn.Module:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig.from_pretrained(folder)
    if config.model_type != "whisper":
        raise SourceError(f"{folder}/config.json says model_type {config.model_type!r}, expected 'whisper'")
    # A full model keeps the encoder under (model.)encoder; an encoder saved alone has no prefix.
    encoder, info = WhisperEncoder.from_pretrained(
        folder, config=config, dtype=dtype, key_mapping={r"^(model\.)?encoder\.": ""}, output_loading_info=True
    )
    if info["missing_keys"]:
        raise SourceError(f"{folder} lacks {len(info['missing_keys'])} tensors of its Whisper encoder, such as {min(info['missing_keys'])}")
    return encoder


def _random(config: dict) -> nn.Module:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    return WhisperEncoder(WhisperConfig(**config))
