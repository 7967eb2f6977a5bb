"""One clip of the corpus: drawn, spoken, encoded and described as LRS3 does.

`<id>.mp4` (224 x 224, 25 fps, H.264 with 16 kHz AAC), `<id>.txt` (text and word times), on request `<id>.phn`
(`PHONE START END`). The mp4 is renamed into place last: where it exists, the clip is complete.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from corpus.grammar import draw_sentence
from corpus.lips import FPS, lip_track
from corpus.look import SIZE
from corpus.render import Face
from corpus.seeding import rng
from corpus.speakers import Speaker, utterance_voice
from corpus.speech import SAMPLE_RATE, Segment, Utterance, speak

_SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
_ROOM_NOISE = 0.0008  # standard deviation; about -62 dB of full scale
# x264 is only reproducible with one thread and without macroblock trees
_X264 = {"crf": "26", "preset": "veryfast", "x264-params": "threads=1:mbtree=0"}


def make_clip(stem: Path, seed: int, speaker: Speaker, face: Face, labels: bool) -> None:
    """Write the files of one clip, unless they are there.

    Args:
        stem: path without extension; its last part names the clip within the speaker.
        seed: seed of the corpus.
        speaker: who speaks.
        face: the speaker's face.
        labels: write the phone times too.
    """
    suffixes = (".txt", ".phn", ".mp4") if labels else (".txt", ".mp4")
    outputs = [stem.with_suffix(suffix) for suffix in suffixes]
    if all(path.exists() for path in outputs):
        return
    generator = rng(seed, "clip", speaker.name, stem.name)
    words = draw_sentence(generator, test=speaker.name.startswith("test"))
    spoken = speak(words, utterance_voice(speaker, generator))
    utterance = in_room(spoken, generator)
    frames = len(utterance.wave) // _SAMPLES_PER_FRAME
    controls = lip_track(utterance.phones, frames, speaker.lead, speaker.expressiveness)
    write_text(stem.with_suffix(".txt"), f"{speaker.name}/{stem.name}", utterance.words)
    if labels:
        lines = (f"{phone.name} {phone.start:.3f} {phone.end:.3f}\n" for phone in utterance.phones)
        _replace(stem.with_suffix(".phn"), "".join(lines))
    write_video(stem.with_suffix(".mp4"), face.frames(controls, generator), utterance.wave)


def in_room(spoken: Utterance, generator: np.random.Generator) -> Utterance:
    """Put silence around the speech, to whole frames, set its level and add faint noise."""
    lead, tail = generator.uniform(0.2, 0.4, 2)
    frames = math.ceil((lead + len(spoken.wave) / SAMPLE_RATE + tail) * FPS)
    level = 10 ** (generator.uniform(-26, -20) / 20)
    speech = spoken.wave * min(level / spoken.wave.std(), 0.95 / np.abs(spoken.wave).max())
    wave = generator.normal(0, _ROOM_NOISE, frames * _SAMPLES_PER_FRAME).astype(np.float32)
    start = round(lead * SAMPLE_RATE)
    wave[start : start + len(speech)] += speech
    phones = [Segment(s.name, s.start + lead, s.end + lead) for s in spoken.phones]
    before, after = Segment("sil", 0.0, phones[0].start), Segment("sil", phones[-1].end, frames / FPS)
    words = [Segment(s.name, s.start + lead, s.end + lead) for s in spoken.words]
    return Utterance(wave, [before, *phones, after], words)


def write_text(path: Path, reference: str, words: list[Segment]) -> None:
    """Write the transcript as LRS3 does: two spaces after `Text:`, capitals, a table of word times in seconds."""
    text = " ".join(word.name for word in words).upper()
    table = "".join(f"{word.name.upper()} {word.start:.2f} {word.end:.2f} 5.0\n" for word in words)
    _replace(path, f"Text:  {text}\nConf:  5\nRef:  {reference}\n\nWORD START END ASDSCORE\n{table}")


def write_video(path: Path, frames: Iterator[np.ndarray], wave: np.ndarray) -> None:
    """Encode pictures and sound.

    Args:
        path: the mp4 to write, complete or not at all.
        frames: (224, 224, 3) uint8 RGB pictures at 25 fps.
        wave: (S,) float32 sound at 16 kHz.
    """
    part = _part(path)
    with av.open(part, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=FPS, options=_X264)
        video.width = video.height = SIZE
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", options={"aac_coder": "fast"})
        for picture in frames:
            planes = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420)  # swscale, which PyAV would use, takes ten times as long
            container.mux(video.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts = SAMPLE_RATE, 0  # without pts the encoder delay of 64 ms would stay in
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    os.replace(part, path)


def _replace(path: Path, content: str) -> None:
    part = _part(path)
    part.write_text(content, encoding="utf-8")
    os.replace(part, path)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")
