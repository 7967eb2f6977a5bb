"""Test conditions: noise on the sound, damage to the video, the same in every run.

A condition is ``clean``, or what is done, joined by ``+``: ``babble_0dB``, ``occlusion``, ``babble_-5dB+frozen``. A kind of
damage is in ``corruption.CORRUPTIONS``; any other name is that of a noise list (stage 5).
"""

from pathlib import Path

import numpy as np

from espnet2_avsr_llm.data.corruption import CORRUPTIONS
from espnet2_avsr_llm.data.noise import NoiseEntry, mix, named_rng, read_noise, read_noise_list

_SEED = 0


def concerns(name: str, streams: set[str]) -> bool:
    """Whether a condition means anything to a task that reads ``streams`` (audio, video, audiovisual); clean always does."""
    touched = {"video" if part in CORRUPTIONS else "audio" for part in name.split("+")}
    return name == "clean" or "audiovisual" in streams or bool(touched & streams)


class Condition:
    """What is done to the inputs of each utterance.

    Args:
        name: of the condition.
        noise_dir: folder of the test set's noise lists.

    Raises:
        FileNotFoundError: there is no noise list of a name.
    """

    def __init__(self, name: str, noise_dir: Path | str | None = None) -> None:
        parts = [] if name == "clean" else name.split("+")
        self._damage = [part for part in parts if part in CORRUPTIONS]
        self.noise: list[dict[str, NoiseEntry]] = []
        for part in (part for part in parts if part not in CORRUPTIONS):
            path = Path(noise_dir or ".") / f"{part}.txt"
            if not path.is_file():
                kinds = ", ".join(CORRUPTIONS)
                raise FileNotFoundError(f"condition {part!r} has no noise list {path}: make it (stage 5); kinds of damage to video are {kinds}")
            self.noise.append(read_noise_list(path))

    def speech(self, utt: str, wave: np.ndarray) -> np.ndarray:
        """Sound (T,) of an utterance, with its noise."""
        for entries in self.noise:
            entry = entries[utt]
            wave = mix(wave, read_noise(entry.path, entry.offset, len(wave)), entry.snr)
        return wave

    def video(self, utt: str, frames: np.ndarray) -> np.ndarray:
        """Video (T, H, W) of an utterance, with its damage."""
        for kind in self._damage:
            frames = CORRUPTIONS[kind](frames, named_rng(_SEED, kind, utt))
        return frames
