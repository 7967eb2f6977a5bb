"""Speech by voices that nobody has, for Whisper alone: random timbres, and the words of the grammar in any order.

The voices of the corpus are espeak-ng's own, some of them odd (formants of 80 or 140 % of the usual frequency, a third formant all
but mute); an encoder that has met only a few dozen voices misses the letters of the next odd one. Frequencies below are in per cent of the language's own.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import espeakng_loader
import numpy as np
from tqdm import tqdm

from corpus.clip import in_room
from corpus.grammar import SLOTS
from corpus.seeding import rng
from corpus.speakers import ACCENTS
from corpus.speech import Voice, speak
from pretrain.clips import Clip, Segment

LETTERS = SLOTS[3]
WORDS = [word for slot in SLOTS for word in slot]
CLIPPED = 0.99  # of full scale


def speak_clips(count: int, longest: float, seed: int, processes: int) -> list[Clip]:
    """Utterances, each by a voice of its own.

    Args:
        count: how many.
        longest: in seconds; longer ones are left out, as are the few that clip or run words together.
        seed: same seed, same clips.
        processes: that speak at the same time.
    """
    with TemporaryDirectory() as folder, ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        spoken = pool.map(_clip, range(count), repeat(seed), repeat(Path(folder)), chunksize=50)
        clips = [clip for clip in tqdm(spoken, total=count, unit="clip", desc="voices") if clip is not None]
    return [clip for clip in clips if len(clip.wave) <= longest * 16000 and np.abs(clip.wave).max() < CLIPPED]


def _clip(number: int, seed: int, folder: Path) -> Clip | None:
    """One utterance; None where espeak runs its words together ("x x x")."""
    generator = rng(seed, "voice", str(number))
    count = int(generator.integers(4, 8))
    words = [str(generator.choice(LETTERS if generator.random() < 0.5 else WORDS)) for _ in range(count)]
    voice = Voice(
        name=f"{generator.choice(ACCENTS)}+random",
        rate=int(generator.integers(115, 170)),
        pitch=int(generator.integers(20, 80)),
        range=int(generator.integers(20, 80)),
    )
    data = _espeak_data(folder / str(os.getpid()))
    (data / "voices" / "!v" / "random").write_text(_variant(generator))
    try:
        spoken = in_room(speak(words, voice, data), generator)
    except RuntimeError:
        return None
    phones, words = (tuple(Segment(s.name, s.start, s.end) for s in segments) for segments in (spoken.phones, spoken.words))
    text = " ".join(word.name for word in words)
    return Clip(f"voice{number}", text, spoken.wave, np.zeros((0, 96, 96), np.uint8), phones, words)


def _espeak_data(folder: Path) -> Path:
    """A folder with links to espeak's data, but for its voices."""
    if not folder.exists():
        (folder / "voices" / "!v").mkdir(parents=True)
        for path in Path(espeakng_loader.get_data_path()).iterdir():
            if path.name != "voices":
                (folder / path.name).symlink_to(path)
    return folder


def _variant(generator: np.random.Generator) -> str:
    """A voice in espeak's own terms: frequency, strength and width of each formant, pitch, and the strength of voiced and other sounds."""
    size = generator.uniform(0.82, 1.25)  # of the whole vocal tract
    lines = ["language variant", "name random"]
    for formant in range(9):
        frequency = 100 * size * (generator.uniform(0.82, 1.2) if formant in (1, 2, 3) else generator.uniform(0.9, 1.1))
        strength = generator.uniform(60, 130) if formant < 3 else generator.uniform(5, 130)
        lines.append(f"formant {formant} {frequency:.0f} {strength:.0f} {generator.uniform(50, 180):.0f}")
    low = generator.uniform(65, 190)
    lines.append(f"pitch {low:.0f} {low * generator.uniform(1.15, 1.6):.0f}")
    if generator.random() < 0.5:
        lines.append(f"voicing {generator.uniform(40, 130):.0f}")
    if generator.random() < 0.5:
        lines.append("consonants {:.0f} {:.0f}".format(*generator.uniform(60, 120, 2)))
    if generator.random() < 0.3:
        lines.append("tone 600 {:.0f} 1200 {:.0f} 2000 {:.0f}".format(*generator.uniform(60, 250, 3)))
    if generator.random() < 0.2:
        lines.append(f"echo {generator.uniform(20, 200):.0f} {generator.uniform(5, 30):.0f}")
    return "\n".join(lines) + "\n"
