"""Eyes with lids and gaze, drawn once per state and pasted.

Coordinates are pixels of the head canvas relative to the middle of the eye.
"""

from functools import lru_cache

import numpy as np

from corpus.canvas import Canvas, blend
from corpus.look import CENTRE_X, EYE_Y, Look

LID_LEVELS = 5  # 0 is shut
_FINE = 4
_WIDTH, _HEIGHT = 40, 28
_WHITE = (226, 222, 216)
_ALONG = np.linspace(-1, 1, 25)


class Eyes:
    """Draws the eyes of one speaker into copies of the head."""

    def __init__(self, look: Look):
        self.look = look
        self.corners = [
            (round(CENTRE_X + side * look.eye_spread) - _WIDTH // 2, round(EYE_Y) - _HEIGHT // 2) for side in (-1, 1)
        ]
        self._patch = lru_cache(maxsize=None)(self._draw_patch)

    def draw(self, head: np.ndarray, lid: int, gaze: int) -> None:
        """Draw both eyes in place.

        Args:
            head: (224, 224, 4) uint8 head.
            lid: 0 (shut) to `LID_LEVELS` - 1 (open).
            gaze: sideways shift of the pupils in half pixels.
        """
        for x, y in self.corners:
            blend(head[y : y + _HEIGHT, x : x + _WIDTH], self._patch(lid, gaze))

    def _draw_patch(self, lid: int, gaze: int) -> np.ndarray:
        canvas = Canvas(_WIDTH, _HEIGHT, (_WIDTH / 2, _HEIGHT / 2), _FINE)
        arch = (1 - _ALONG**2) ** 0.8
        lower = np.stack([11.5 * _ALONG, 3.6 * arch], axis=1)
        upper = np.stack([11.5 * _ALONG, (3.4 - 9.0 * lid / (LID_LEVELS - 1)) * arch], axis=1)
        socket = np.stack([12.5 * _ALONG, -6.8 * arch - 0.5], axis=1)
        skin = np.array(self.look.skin)
        canvas.fill(np.concatenate([socket, lower[::-1]]), skin * 0.72)
        canvas.cut_out(np.concatenate([upper, lower[::-1]]), self._ball(canvas, gaze / 2))
        canvas.line(upper, np.array(self.look.hair) * 0.4, 1.25)
        canvas.line(lower, skin * 0.6, 0.5)
        return canvas.average()

    def _ball(self, canvas: Canvas, aside: float) -> Canvas:
        ball = canvas.behind(_WHITE)
        iris = np.array(self.look.iris)
        for radius, colour in ((5.2, iris * 0.6), (4.6, iris), (2.2, np.array((12, 10, 10)))):
            ball.ellipse((aside, -0.8), (radius, radius), colour)
        ball.ellipse((aside + 1.4, -2.4), (0.9, 0.9), np.array((250, 250, 250)))
        return ball
