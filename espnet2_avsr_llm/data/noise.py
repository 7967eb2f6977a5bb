"""Additive noise at an exact signal-to-noise ratio, babble, noise for training, and fixed noise lists for evaluation.

An SNR is a number of decibels or None (clean); 0 means 0 dB. A noise list has one line
``utterance noise_path offset_in_samples snr_in_dB``: evaluation with it repeats exactly. Its files, and those of a list
for training (a line ``kind path`` each), are 16 kHz mono wav or flac, so that any part of them can be read alone.

Shapes: T samples at 16 kHz.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from espnet2_avsr_llm.data import SAMPLE_RATE
from espnet2_avsr_llm.data.atomic import write_text
from espnet2_avsr_llm.data.media import read_audio

_DRAWS = 100  # of noise that is not silent
N_TALKERS = 30  # of a babble, as in AV-HuBERT (arXiv:2201.02184)


class NoiseEntry(NamedTuple):
    """The noise of one utterance: its file, the sample it starts at, the SNR in dB."""

    path: str
    offset: int
    snr: float


def mix(wave: np.ndarray, noise: np.ndarray, snr: float | None, offset: int = 0) -> np.ndarray:
    """Add noise so that the ratio of the two powers over the whole clip is exactly ``snr``.

    Args:
        wave: (T,) speech.
        noise: (N,) noise, repeated where it is too short.
        snr: dB; None returns the speech as it is.
        offset: sample of ``noise`` that meets the first of ``wave``.

    Returns:
        (T,) float32; the speech keeps its level.

    Raises:
        ValueError: the noise is silent where it is needed.
    """
    if snr is None or not len(wave):
        return wave.astype(np.float32, copy=False)
    added = np.take(noise, np.arange(offset, offset + len(wave)), mode="wrap").astype(np.float64)
    noise_power = np.mean(added**2)
    if noise_power == 0:
        raise ValueError(f"the noise is silent at samples {offset} to {offset + len(wave)}: expected sound, use other noise")
    speech_power = np.mean(wave.astype(np.float64) ** 2)
    return (wave + added * np.sqrt(speech_power / noise_power * 10 ** (-snr / 10))).astype(np.float32)


def make_babble(talkers: Sequence[np.ndarray], n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Let many people talk at once, each equally loud and starting anywhere in what they say.

    Args:
        talkers: waves (T,) of any lengths, repeated to fill ``n_samples``; 30 make a babble.
        n_samples: length wanted.
        rng: draws where each begins.

    Returns:
        (n_samples,) float32 of unit power.

    Raises:
        ValueError: a talker is silent.
    """
    total = np.zeros(n_samples)
    for number, talker in enumerate(talkers):
        power = np.mean(talker.astype(np.float64) ** 2) if len(talker) else 0
        if power == 0:
            raise ValueError(f"talker {number} of the babble is silent: expected speech")
        start = int(rng.integers(len(talker)))
        total += np.take(talker, np.arange(start, start + n_samples), mode="wrap") / np.sqrt(power)
    return (total / np.sqrt(np.mean(total**2))).astype(np.float32)


def named_rng(seed: int, *names: str) -> np.random.Generator:
    """A generator that depends on the seed and the names alone (an utterance id, for example)."""
    digest = hashlib.sha256("\n".join((str(seed), *names)).encode("utf-8")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def read_noise(path: str | os.PathLike, offset: int, n_samples: int) -> np.ndarray:
    """Read a part of a noise file, which begins again where it ends.

    Returns:
        (n_samples,) float32.

    Raises:
        ValueError: the file is not 16 kHz mono, or empty.
    """
    import soundfile

    with soundfile.SoundFile(path) as file:
        if (file.samplerate, file.channels) != (SAMPLE_RATE, 1) or not file.frames:
            found = f"{file.frames} samples of {file.samplerate} Hz, {file.channels} channels"
            raise ValueError(f"{path}: found {found}; expected {SAMPLE_RATE} Hz mono noise: convert it, or make the lists again (stage 5)")
        part, done = np.empty(n_samples, np.float32), 0
        file.seek(offset % file.frames)
        while done < n_samples:
            piece = file.read(n_samples - done, dtype="float32")
            part[done : done + len(piece)] = piece
            done += len(piece)
            file.seek(0)
    return part


def draw_noise(files: Sequence[tuple[str, int]], n_samples: int, rng: np.random.Generator) -> tuple[str, int]:
    """Draw a file and an offset in it, where the noise is not silent for ``n_samples``.

    Args:
        files: path and number of samples of each.
        n_samples: of the utterance.
        rng: of the draw.

    Raises:
        ValueError: a hundred draws met silence only.
    """
    for _ in range(_DRAWS):
        path, length = files[0] if len(files) == 1 else files[int(rng.integers(len(files)))]
        offset = int(rng.integers(length))
        if read_noise(path, offset, n_samples).any() or not n_samples:
            return path, offset
    raise ValueError(f"{_DRAWS} draws of noise from {len(files)} files met only silence, the last in {path}: expected sound, use other noise")


class NoiseSource:
    """Noise for training.

    Args:
        path: a sound file of any kind, or a list (``.txt``) with a line ``kind path`` for each noise file; all kinds
            are drawn equally often, and all files of a kind.
    """

    def __init__(self, path: str) -> None:
        self._wave: np.ndarray | None = None
        self._kinds: list[list[tuple[str, int]]] = []
        if not path.endswith(".txt"):
            self._wave = read_audio(path)
            return
        kinds: dict[str, list[tuple[str, int]]] = {}
        with open(path, encoding="utf-8") as lines:
            for kind, file in (line.rstrip("\n").split(maxsplit=1) for line in lines):
                kinds.setdefault(kind, []).append((file, _length(file)))
        self._kinds = list(kinds.values())

    def draw(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """A part of the noise (n_samples,)."""
        if self._wave is not None:
            start = int(rng.integers(len(self._wave)))
            return np.take(self._wave, np.arange(start, start + n_samples), mode="wrap")
        files = self._kinds[0] if len(self._kinds) == 1 else self._kinds[int(rng.integers(len(self._kinds)))]
        return read_noise(*draw_noise(files, n_samples, rng), n_samples)


def _length(path: str) -> int:
    import soundfile

    return soundfile.info(path).frames


def write_noise_list(path: str | os.PathLike, entries: Mapping[str, NoiseEntry]) -> None:
    """Write a noise list, sorted by utterance id."""
    lines = (f"{utt} {noise} {offset} {snr:g}\n" for utt, (noise, offset, snr) in sorted(entries.items()))
    write_text(path, "".join(lines))


def read_noise_list(path: str | os.PathLike) -> dict[str, NoiseEntry]:
    """Read a noise list.

    Raises:
        ValueError: a line has another form.
    """
    entries = {}
    with open(path, encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            try:
                utt, rest = line.split(maxsplit=1)
                noise, offset, snr = rest.rsplit(maxsplit=2)
                entries[utt] = NoiseEntry(noise, int(offset), float(snr))
            except ValueError:
                expected = "`utterance noise_path offset snr`"
                raise ValueError(f"{path}:{number}: expected {expected}, found {line.strip()!r}") from None
    return entries
