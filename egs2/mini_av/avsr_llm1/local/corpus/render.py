"""From lip controls to pictures: the speaker's head, moved, in front of the wall, with film noise.

Shapes: `T` frames at 25 fps.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from corpus.eyes import LID_LEVELS, Eyes
from corpus.head import JAW_LEVELS, draw_background, draw_head
from corpus.lips import FPS
from corpus.look import CENTRE_X, SIZE, Look, draw_look
from corpus.mouth import Mouth

_NOISE = 2  # grey levels of film noise, either way
_BLINK = (3, 1, 0, 1, 3)  # lid levels of the frames of a blink


class Face:
    """A drawn speaker; making one takes a fraction of a second, its frames milliseconds.

    Args:
        generator: source of the look.
    """

    def __init__(self, generator: np.random.Generator):
        self.look = draw_look(generator)
        self.heads = draw_head(self.look, generator)
        self.background = cv2.cvtColor(draw_background(self.look, generator), cv2.COLOR_RGB2RGBA)
        self.mouth = Mouth(self.look)
        self.eyes = Eyes(self.look)

    def frames(self, controls: np.ndarray, generator: np.random.Generator) -> Iterator[np.ndarray]:
        """Draw a clip.

        Args:
            controls: (T, 7) lip controls, `phones.CONTROLS` in 0..1.
            generator: source of head motion, blinks, gaze, brightness and noise.

        Yields:
            T pictures (224, 224, 3) uint8 RGB.
        """
        count = len(controls)
        motion = _head_motion(self.look, count, generator)
        lids, gaze = _blinks(count, generator), _gaze(count, generator)
        gain = generator.uniform(0.94, 1.06)
        for t in range(count):
            head = self.heads[round(controls[t, 0] * (JAW_LEVELS - 1))].copy()
            self.eyes.draw(head, int(lids[t]), int(gaze[t]))
            self.mouth.draw(head, controls[t])
            moved = cv2.warpAffine(head, motion[t], (SIZE, SIZE), flags=cv2.INTER_LINEAR)
            picture = cv2.multiply(self.background, cv2.merge([255 - moved[..., 3]] * 4), scale=1 / 255)
            picture = cv2.cvtColor(cv2.add(picture, moved), cv2.COLOR_RGBA2RGB)
            noise = generator.integers(0, 2 * _NOISE + 1, (SIZE, SIZE), dtype=np.uint8)
            picture = cv2.add(cv2.convertScaleAbs(picture, alpha=gain), cv2.merge([noise] * 3))
            yield cv2.subtract(picture, (_NOISE, _NOISE, _NOISE, 0))


def _head_motion(look: Look, count: int, generator: np.random.Generator) -> np.ndarray:
    """(T, 2, 3) affine matrices from the head canvas to the picture: slow sway, tilt and approach."""
    times = np.arange(count) / FPS
    tracks = []
    for size in (3.0, 2.5, 0.045, 0.015):  # pixels, pixels, radians, factor
        phase, rate = generator.uniform(0, 2 * np.pi, 3), generator.uniform((0.1, 0.3, 0.6), (0.3, 0.6, 1.1))
        waves = np.sin(2 * np.pi * rate * times[:, None] + phase) * (1.0, 0.5, 0.25)
        tracks.append(size * (waves.sum(axis=1) / 1.3 + generator.normal(0, 0.4)))
    shift_x, shift_y, angle, grow = tracks
    scale = look.scale * (1 + grow)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    x, y = CENTRE_X + look.position[0] + shift_x, CENTRE_X + look.position[1] + shift_y
    rows = [cos, -sin, x - CENTRE_X * (cos - sin), sin, cos, y - CENTRE_X * (sin + cos)]
    return np.stack(rows, axis=1).reshape(count, 2, 3)


def _blinks(count: int, generator: np.random.Generator) -> np.ndarray:
    lids = np.full(count, LID_LEVELS - 1)
    start = int(generator.integers(0, 80))
    while start < count:
        part = _BLINK[: count - start]
        lids[start : start + len(part)] = part
        start += int(generator.integers(40, 120))
    return lids


def _gaze(count: int, generator: np.random.Generator) -> np.ndarray:
    targets = generator.integers(-2, 3, count // 20 + 1)
    return np.repeat(targets, 20)[:count]
