"""Transcripts by Whisper (arXiv:2212.04356), for training data that has none.

auto_avsr (arXiv:2303.14307) labels VoxCeleb2 so, with `medium.en`.
"""

import zlib

import numpy as np
import torch

from espnet2_avsr_llm.data import SAMPLE_RATE
from espnet2_avsr_llm.data.text import normalise
from espnet2_avsr_llm.hub.resolve import resolve

_SECONDS = 30  # Whisper's window
_MOST_TOKENS = 200
_REPETITIVE = 2.4  # ratio of compression, as in Whisper's own program


class Transcriber:
    """A Whisper that writes down what it hears, greedily.

    Args:
        source: folder or hub id.
        revision: of a hub id.
        language: what is spoken, ISO 639-1.
        device: where it runs.

    Raises:
        SourceError: nothing there.
        ValueError: an English-only Whisper and another language.
    """

    def __init__(self, source: str, revision: str | None, language: str, device: str) -> None:
        from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

        folder = resolve(source, revision)
        self._features = WhisperFeatureExtractor.from_pretrained(folder)
        self._tokenizer = WhisperTokenizer.from_pretrained(folder)
        dtype = torch.float32 if device == "cpu" else torch.float16
        self._model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=dtype).to(device).eval()
        self._multilingual = bool(self._model.generation_config.is_multilingual)
        if not self._multilingual and language != "en":
            raise ValueError(f"{source} knows English only; found language {language!r}: take a multilingual Whisper")
        self._language = language

    @torch.no_grad()
    def __call__(self, waves: list[np.ndarray]) -> list[tuple[str, str | None]]:
        """Transcribe.

        Args:
            waves: (T,) at 16 kHz each, at most 30 s.

        Returns:
            for each its normalised text, and why it cannot be used (None if it can).
        """
        inputs = self._features(waves, sampling_rate=SAMPLE_RATE, return_tensors="pt").to(self._model.device, self._model.dtype)
        options = {"language": self._language, "task": "transcribe"} if self._multilingual else {}
        tokens = self._model.generate(**inputs, **options, do_sample=False, num_beams=1, max_new_tokens=_MOST_TOKENS)
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        spoken = self._languages(inputs) if self._multilingual else [self._language] * len(waves)
        return [self._judge(wave, text, language) for wave, text, language in zip(waves, texts, spoken)]

    def _languages(self, inputs) -> list[str]:
        ids = self._model.detect_language(inputs["input_features"])
        return [token.strip("<|>") for token in self._tokenizer.convert_ids_to_tokens(ids.flatten().tolist())]

    def _judge(self, wave: np.ndarray, text: str, language: str) -> tuple[str, str | None]:
        written, raw = normalise(text), text.encode()
        if len(wave) > _SECONDS * SAMPLE_RATE:
            return written, f"longer than {_SECONDS} s: {len(wave) / SAMPLE_RATE:.1f} s"
        if language != self._language:
            return written, f"another language: {language}"
        if not written:
            return written, "no words"
        if len(raw) > _REPETITIVE * len(zlib.compress(raw)):
            return written, f"repetitive: {written[:60]}"
        return written, None
