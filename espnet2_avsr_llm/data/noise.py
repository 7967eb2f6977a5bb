"""Additive noise at an exact signal-to-noise ratio, babble, and fixed noise lists for evaluation.

An SNR is a number of decibels or None (clean); 0 means 0 dB. A noise list has one line
``utterance noise_path offset_in_samples snr_in_dB``: evaluation with it repeats exactly.

Shapes: T samples at 16 kHz.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from espnet2_avsr_llm.data.atomic import write_text

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


def noise_list(utts: Sequence[str], path: str, n_samples: int, snr: float, seed: int) -> dict[str, NoiseEntry]:
    """Draw where each utterance's noise starts; the same at every SNR, so that conditions compare.

    Args:
        utts: utterance ids.
        path: noise file.
        n_samples: its length.
        snr: dB.
        seed: the draw depends on it and the utterance id alone.
    """
    return {utt: NoiseEntry(path, int(named_rng(seed, utt).integers(n_samples)), snr) for utt in utts}


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
