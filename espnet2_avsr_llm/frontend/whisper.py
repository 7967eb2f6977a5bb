"""Whisper encoder as an audio frontend: Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, arXiv:2212.04356.

Shapes: `B` batch, `S` samples at 16 kHz, `W` samples of the window, `M` mel bands, `T` features at 50 Hz, `F` feature width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet2_avsr_llm.data import SAMPLE_RATE
from espnet2_avsr_llm.frontend.abs_frontend import AbsFrontend, Lengthed, valid_mask
from espnet2_avsr_llm.hub.build import from_folder, read_config
from espnet2_avsr_llm.hub.resolve import SourceError

FFT, HOP = 400, 160  # 25 ms and 10 ms
WINDOWS = ("30s", "utterance")
SAMPLES_PER_FEATURE = 320  # the encoder's second convolution halves the 100 mel frames of a second


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
    """Encoder of a Hugging Face Whisper model of any size, English-only or multilingual; features are cut to each clip's length.

    Args:
        source, init, arch, revision, dtype, lora, device: as of :class:`AbsFrontend`; the source is a full model or an encoder alone.
        window: ``30s`` pads every clip to the window that the model was trained on (30 s for the public ones). ``utterance`` pads to
            the longest clip of the batch, cuts the table of positions to it, and masks padding: several times as fast on short
            clips, but other features, because the model is used to attend to the silence after a clip. Train and decode with the same.
        released_lengths: keep as many features as the released programs do (:func:`released_frames`), the first ones after a
            very short clip being those of its zero padding. Here the count is exact by default and has no floor.

    Raises:
        SourceError: the source is missing, damaged, or no Whisper model.
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
        window: str = "30s",
        released_lengths: bool = False,
    ) -> None:
        if window not in WINDOWS:
            raise ValueError(f"whisper window {window!r}: choose from {', '.join(WINDOWS)}")
        super().__init__(source, init, arch, revision, dtype, lora, device)
        config = self.encoder.config
        self.window = window
        self.max_inputs = config.max_source_positions * SAMPLES_PER_FEATURE
        self.log_mel = LogMel(config.num_mel_bins)
        self.streams = {"audio": config.d_model}
        self.released_lengths = released_lengths

    def num_frames(self, stream: str, counts: Mapping[str, int]) -> int:
        """Features of a clip: one per full 320 samples."""
        samples = counts.get("speech", 0)
        return released_frames(samples) if self.released_lengths else samples // SAMPLES_PER_FEATURE

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
        frames = torch.tensor([self.num_frames("audio", {"speech": n}) for n in samples.tolist()], device=samples.device)
        features = wave.new_zeros(len(wave), int(frames.max()), self.streams["audio"], dtype=self.dtype)
        rows = frames.nonzero().flatten()
        if len(rows):
            encode = self._encode_window if self.window == "30s" else self._encode_utterance
            encoded = encode(_clean(wave[rows], samples[rows]), frames[rows])[:, : features.size(1)]
            features = features.index_copy(0, rows, encoded * valid_mask(frames[rows], features.size(1)).unsqueeze(-1))
        return {"audio": (features, frames)}

    def _check(self, samples: Tensor) -> None:
        longest = int(samples.max())
        if longest > self.max_inputs:
            raise ValueError(
                f"A clip of {longest / SAMPLE_RATE:.2f} s (row {int(samples.argmax())}) does not fit the {self.max_inputs / SAMPLE_RATE:g}-s "
                "window of this Whisper model. Decode long recordings with Speech2Text, which windows them, or drop the clip in stage 4"
            )

    def _encode_window(self, wave: Tensor, frames: Tensor) -> Tensor:
        wave = wave[:, : self.max_inputs]
        mel = self.log_mel(F.pad(wave, (0, self.max_inputs - wave.size(1))))
        return self.encoder(mel.to(self.dtype)).last_hidden_state

    def _encode_utterance(self, wave: Tensor, frames: Tensor) -> Tensor:
        """The encoder, driven by its sub-modules: no frame of a clip sees anything beyond the clip's last feature."""
        encoder, size = self.encoder, int(frames.max())
        # Silence at the end, as in the full window: the Fourier transform mirrors what it finds there.
        length = (size + 2) * SAMPLES_PER_FEATURE
        mel = self.log_mel(F.pad(wave, (0, length - wave.size(1))))[..., : 2 * size].to(self.dtype)
        mel_valid = valid_mask(2 * frames, 2 * size)[:, None]
        x = F.gelu(encoder.conv1(mel * mel_valid)) * mel_valid
        x = F.gelu(encoder.conv2(x)).transpose(1, 2) + encoder.embed_positions.weight[:size]
        valid = valid_mask(frames, size)
        mask = x.new_zeros(valid.shape).masked_fill(~valid, torch.finfo(x.dtype).min)[:, None, None, :]
        for layer in encoder.layers:
            x = layer(x, mask)
        return encoder.layer_norm(x)

    @staticmethod
    def load(folder: str, dtype: torch.dtype) -> nn.Module:
        """The encoder of a Whisper folder."""
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        config = _config(read_config(folder))
        # A full model keeps the encoder under (model.)encoder; an encoder saved alone has no prefix.
        return from_folder(WhisperEncoder, folder, config=config, dtype=dtype, key_mapping={r"^(model\.)?encoder\.": ""})

    @staticmethod
    def random(config: dict) -> nn.Module:
        """The encoder that a configuration describes."""
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return WhisperEncoder(_config(config))


def _clean(wave: Tensor, samples: Tensor) -> Tensor:
    return wave * valid_mask(samples, wave.size(1))


def _config(config: dict):
    from transformers import WhisperConfig

    if config.get("model_type") != "whisper":
        raise SourceError(f"The configuration says model_type {config.get('model_type')!r}, expected 'whisper'")
    return WhisperConfig.from_dict(config)
