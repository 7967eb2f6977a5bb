"""Media files made for tests, each frame and each stretch of sound where it is said to be."""

from fractions import Fraction

import av
import numpy as np


def tone(rate, seconds=1.0, frequency=440.0, level=0.5):
    return (level * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def make_file(path, rate=Fraction(25), n=25, times=None, codec="libx264", wave=None, audio_late=0.0, encoder=None, ticks=90000, **options):
    """A file whose frame i is grey level 4 i + 20 (top half black), with sound `wave` (channels, T) at 16 kHz if given.

    `encoder` are the options of the codec, `options` of the container; `times` in seconds, in steps of 1 / `ticks`.
    """
    with av.open(str(path), "w", options=options) as out:
        if n:
            video = out.add_stream(codec, rate=rate, options=encoder)
            video.width, video.height, video.pix_fmt, video.gop_size, video.bit_rate = 64, 48, "yuv420p", 10, 4_000_000
            video.codec_context.time_base = Fraction(1, ticks) if times else 1 / Fraction(rate)
        if wave is not None:
            audio = out.add_stream("aac" if codec == "libx264" else "mp2", rate=16000, layout="stereo" if len(wave) == 2 else "mono")
        for i in range(n):
            picture = np.full((48, 64, 3), min(4 * i + 20, 255), np.uint8)
            picture[:24] = 0
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times:
                frame.pts, frame.time_base = round(times[i] * ticks), Fraction(1, ticks)
            out.mux(video.encode(frame))
        if n:
            out.mux(video.encode())
        if wave is not None:
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout=audio.layout.name)
            frame.sample_rate, frame.pts, frame.time_base = 16000, round(audio_late * 16000), Fraction(1, 16000)
            out.mux(audio.encode(frame))
            out.mux(audio.encode())
    return path


def indices(video):
    """Which of `make_file`'s frames these are."""
    return np.rint((video[:, -8, 32].mean(-1) - 20) / 4).astype(int)


def make_sound(path, pieces):
    """Stretches of 16 kHz sound, each (seconds where it begins, samples), with nothing in between, beside 25 frames of video."""
    with av.open(str(path), "w") as out:
        video, audio = out.add_stream("libx264", rate=25), out.add_stream("flac", rate=16000, layout="mono")
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for _ in range(25):
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        out.mux(video.encode())
        size = audio.codec_context.frame_size
        for begin, wave in pieces:
            for at in range(0, len(wave) - size + 1, size):
                frame = av.AudioFrame.from_ndarray((wave[None, at : at + size] * 30000).astype(np.int16), format="s16", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 16000, round(begin * 16000) + at, Fraction(1, 16000)
                out.mux(audio.encode(frame))
        out.mux(audio.encode())
