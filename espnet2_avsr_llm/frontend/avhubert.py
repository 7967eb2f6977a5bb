"""AV-HuBERT as a frontend: mouth pictures, sound, or both in, one feature per video frame out, arXiv:2201.02184.

Shapes: `B` batch, `T` video frames at 25 Hz, `F` feature width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from espnet2_avsr_llm.data.filterbank import num_stacked
from espnet2_avsr_llm.frontend.abs_frontend import AbsFrontend, Lengthed, valid_mask
from espnet2_avsr_llm.frontend.avhubert_model import AVHubert, AVHubertConfig
from espnet2_avsr_llm.hub.build import read_config
from espnet2_avsr_llm.hub.resolve import SourceError

PIXEL_MEAN, PIXEL_STD = 0.421, 0.165  # of LRS3 mouths in [0, 1]
READ_BY = {"video": ("video",), "audio": ("speech",), "audiovisual": ("video", "speech")}
CHOICES = (("video",), ("audio",), ("audio", "video"), ("audiovisual",))


class AVHubertFrontend(AbsFrontend):
    """Streams of one AV-HuBERT.

    Args:
        source, init, arch, revision, dtype, lora, device: as of :class:`AbsFrontend`; the source is a folder with ``config.json``
            and ``model.safetensors``, such as ``avsr-llm convert avhubert`` writes.
        streams: ``[video]``; ``[audio]``; ``[audio, video]``, a run of the encoder for each; or ``[audiovisual]``, one run that fuses
            both (the two audio-visual modes of Llama-AVSR, arXiv 2409.12319).
        video_multiple: cut the video to a multiple of so many frames, as the released programs of one rate do with that rate; else the
            encoder also sees the frames that compression then drops.

    Raises:
        SourceError: the source is missing or does not fit its configuration.
    """

    def __init__(
        self,
        source: str | None = None,
        init: str = "pretrained",
        arch: str | None = None,
        revision: str | None = None,
        dtype: str = "float32",
        lora: Mapping | None = None,
        device: str | None = None,
        streams: Sequence[str] = ("video",),
        video_multiple: int = 1,
    ) -> None:
        if tuple(streams) not in CHOICES:
            raise ValueError(f"avhubert streams {list(streams)}: choose from {', '.join(str(list(c)) for c in CHOICES)}")
        super().__init__(source, init, arch, revision, dtype, lora, device)
        self.streams = dict.fromkeys(streams, self.encoder.config.encoder_embed_dim)
        read = {name for stream in streams for name in READ_BY[stream]}
        self.inputs = tuple(name for name in ("video", "speech") if name in read)
        self.filterbanks = "speech" in read
        self.video_multiple = video_multiple

    def inputs_of(self, stream: str) -> tuple[str, ...]:
        """Those of :attr:`inputs` that a stream is made from."""
        return READ_BY[stream]

    def num_frames(self, stream: str, counts: Mapping[str, int]) -> int:
        """One feature per video frame or stacked filterbank, of the longer of the two where both are read."""
        lengths = {"video": self._cut(counts.get("video", 0)), "speech": num_stacked(counts.get("speech", 0))}
        return max(lengths[name] for name in READ_BY[stream])

    def forward(self, **inputs: Lengthed) -> dict[str, Lengthed]:
        """Encode.

        Args:
            video: ``(B, T, 88, 88)`` uint8, or float already normalised, and its lengths ``(B,)`` in frames.
            speech: ``(B, T, 104)`` filterbanks (:func:`~espnet2_avsr_llm.data.filterbank.stacked_filterbanks`) and their lengths.
                What lies beyond a length is ignored.

        Returns:
            For each stream ``(features (B, T, F), lengths (B,))``; ``T`` is the longest length of the batch. The joint stream is as
            long as the longer of its two inputs; where one of them has ended or is missing, it counts as absent.

        Raises:
            ValueError: ``speech`` is a waveform.
        """
        if "speech" in inputs and inputs["speech"][0].dim() != 3:
            found = list(inputs["speech"][0].shape)
            raise ValueError(f"AV-HuBERT reads speech as filterbanks (B, T, 104), found {found}: see data/filterbank.py")
        if "video" in inputs:
            inputs["video"] = inputs["video"][0], self._cut(inputs["video"][1])
        return {stream: self._encode({name: inputs[name] for name in READ_BY[stream]}) for stream in self.streams}

    def _cut(self, frames: int | Tensor) -> int | Tensor:
        return frames // self.video_multiple * self.video_multiple

    def _encode(self, inputs: dict[str, Lengthed]) -> Lengthed:
        lengths = torch.stack([n for _, n in inputs.values()]).amax(0)
        size = int(lengths.max())
        valid = valid_mask(lengths, size)
        if not valid.any():
            return next(iter(inputs.values()))[0].new_zeros(*valid.shape, self.encoder.config.encoder_embed_dim, dtype=self.dtype), lengths
        prepared = {}
        for name, (x, n) in inputs.items():
            present = valid_mask(n, size)
            x = _pixels(x) if name == "video" else x
            x = torch.nn.functional.pad(x[:, :size], (0, 0) * (x.dim() - 2) + (0, size - min(size, x.size(1))))
            # Zero, not black: the released programs pad with zeros after normalisation, and so does the 3-D convolution.
            if present.any():
                prepared[name] = x.to(self.dtype) * present.reshape(*present.shape, *[1] * (x.dim() - 2)), present
        return self.encoder(prepared.get("video"), prepared.get("speech")), lengths

    @staticmethod
    def load(folder: str, dtype: torch.dtype) -> AVHubert:
        """Read an encoder from ``config.json`` and ``model.safetensors``."""
        from safetensors.torch import load_file

        model = AVHubertFrontend.random(read_config(folder))
        weights = Path(folder) / "model.safetensors"
        if not weights.is_file():
            raise SourceError(f"{folder} has no model.safetensors: an AV-HuBERT source is a folder with config.json and model.safetensors")
        try:
            model.load_state_dict(load_file(weights))
        except RuntimeError as e:
            raise SourceError(f"{folder}: model.safetensors does not fit config.json: {e}") from e
        return model.to(dtype)

    @staticmethod
    def random(config: dict) -> AVHubert:
        """The encoder that a configuration describes."""
        if config.get("model_type") != "avhubert":
            raise SourceError(f"The configuration says model_type {config.get('model_type')!r}, expected 'avhubert'")
        sizes = {k: v for k, v in config.items() if k != "model_type"}
        unknown = set(sizes) - {f.name for f in fields(AVHubertConfig)}
        if unknown:
            raise SourceError(f"Unknown AV-HuBERT configuration keys: {', '.join(sorted(unknown))}")
        return AVHubert(AVHubertConfig(**sizes | {"trunk_widths": tuple(sizes.get("trunk_widths", AVHubertConfig.trunk_widths))}))


def _pixels(video: Tensor) -> Tensor:
    return (video.float() / 255 - PIXEL_MEAN) / PIXEL_STD if video.dtype == torch.uint8 else video
