"""The mouth: lips, teeth and tongue drawn from the seven controls of `phones.CONTROLS`.

Drawn at three times the size and averaged down, so that a tooth edge moves by fractions of a pixel. Coordinates are
pixels of the head canvas, relative to the middle of the closed mouth.
"""

import numpy as np

from corpus.canvas import Canvas, blend
from corpus.look import CENTRE_X, MOUTH_Y, Look
from corpus.phones import CONTROLS

_FINE = 3
_LEFT, _TOP, _WIDTH, _HEIGHT = 80, 140, 64, 54  # the patch of the head canvas that is drawn
_ALONG = np.linspace(-1, 1, 41)  # from corner to corner
_ARCH = 1 - _ALONG**2
_CUPID = 1 + 0.12 * np.exp(-(((np.abs(_ALONG) - 0.28) / 0.16) ** 2)) - 0.22 * np.exp(-((_ALONG / 0.13) ** 2))
_CAVITY = (38, 14, 14)
_TONGUE = np.array((206, 112, 108))
_SHADE = 0.95  # the mouth lies a little in the shadow of the nose


class Mouth:
    """Draws the mouth of one speaker into copies of the head.

    Args:
        look: sizes and colours.
    """

    def __init__(self, look: Look):
        self.look = look
        self.lips = np.array(look.lips) * _SHADE
        self.teeth = np.array(look.teeth) * _SHADE
        self.tongue = _TONGUE * _SHADE

    def draw(self, head: np.ndarray, controls: np.ndarray) -> None:
        """Draw one mouth in place.

        Args:
            head: (224, 224, 4) uint8 head with the jaw already open.
            controls: (7,) controls in 0..1.
        """
        c = dict(zip(CONTROLS, controls.tolist()))
        shape = _Shape(self.look, c)
        canvas = Canvas(_WIDTH, _HEIGHT, (CENTRE_X - _LEFT, MOUTH_Y - _TOP), _FINE)
        self._draw_lips(canvas, shape, c)
        self._draw_inside(canvas, shape, c)
        if c["tongue"] > 0.8:
            self._draw_protruding_tongue(canvas, shape, (c["tongue"] - 0.8) / 0.2)
        blend(head[_TOP : _TOP + _HEIGHT, _LEFT : _LEFT + _WIDTH], canvas.average())

    def _draw_lips(self, canvas: Canvas, shape: "_Shape", c: dict[str, float]) -> None:
        lower = np.concatenate([shape.inner_lower, shape.outer_lower[::-1]])
        upper = np.concatenate([shape.inner_upper, shape.outer_upper[::-1]])
        canvas.fill(lower, self.lips)
        canvas.fill(upper, self.lips * 0.8)
        middle = 0.5 * (shape.inner_lower + shape.outer_lower)[11:30]
        canvas.line(middle, self.lips * 1.18 + 8, (1.6 + 1.2 * c["round"]) * (1 - 0.6 * c["press"]))
        canvas.line(0.4 * shape.inner_upper[8:33] + 0.6 * shape.outer_upper[8:33], self.lips * 0.9, 1.4)

    def _draw_inside(self, canvas: Canvas, shape: "_Shape", c: dict[str, float]) -> None:
        """Cavity, tongue and teeth, cut to the opening between the lips; a dark line where the lips meet."""
        inside = canvas.behind(_CAVITY)
        self._draw_tongue(inside, shape, c["tongue"])
        self._draw_teeth(inside, shape, c)
        canvas.cut_out(np.concatenate([shape.inner_upper, shape.inner_lower[::-1]]), inside)
        canvas.line(shape.inner_upper, self.lips * 0.42, 1.0)
        canvas.line(shape.inner_lower, self.lips * (0.42 + 0.25 * c["round"]), 0.8)

    def _draw_tongue(self, inside: Canvas, shape: "_Shape", raised: float) -> None:
        floor, roof = shape.lower, shape.upper + 2
        lift = np.clip((raised - 0.25) / 0.4, 0, 1)
        top = floor - 0.3 * shape.gap * (1 - lift) - lift * (floor - roof)
        half_width = shape.half_width * (0.62 - 0.2 * lift)
        colour = self.tongue * (0.6 + 0.4 * lift)
        inside.ellipse((0, top + 9), (half_width, 9), colour)
        inside.ellipse((0, top + 5), (0.6 * half_width, 3.5), np.minimum(colour * (1 + 0.15 * lift), 255))
        if lift > 0.5:  # the underside of a raised tongue shows its frenulum
            inside.line(np.array(((0, top + 3), (0, top + 14))), colour * 0.6, 0.9)

    def _draw_teeth(self, inside: Canvas, shape: "_Shape", c: dict[str, float]) -> None:
        shown = c["teeth"]
        below = np.clip((shown - 0.6) / 0.4, 0, 1) * (1 - c["tuck"])
        upper_edge = shape.upper + shown * 7.5
        lower_edge = shape.lower - below * 3.2
        edge = min(upper_edge, max(lower_edge, shape.upper + 0.6 * shape.gap)) if below > 0.05 else upper_edge
        half_width = 0.74 * shape.half_width
        if below > 0.05:
            _row(inside, half_width * 0.9, max(lower_edge, edge + 0.5), shape.lower + 3, self.teeth * 0.86)
        if shown > 0.05:
            _row(inside, half_width, shape.upper - 8, edge, self.teeth)
            for x in (-0.5, -0.25, 0, 0.25, 0.5):
                inside.line(np.array(((x * half_width, edge - 9), (x * half_width, edge))), self.teeth * 0.86, 0.35)

    def _draw_protruding_tongue(self, canvas: Canvas, shape: "_Shape", amount: float) -> None:
        """The tip of the tongue over the lower lip."""
        top, bottom = shape.upper + 0.45 * shape.gap, shape.lower + 0.75 * shape.lower_lip * amount
        centre, half_height = 0.5 * (top + bottom), 0.5 * max(bottom - top, 1)
        half_width = 0.46 * shape.half_width
        canvas.ellipse((0, centre + 0.8), (half_width + 0.8, half_height + 0.6), self.lips * 0.55)
        canvas.ellipse((0, centre), (half_width, half_height), self.tongue)
        canvas.ellipse((0, centre + 0.1 * half_height), (0.55 * half_width, 0.45 * half_height), self.tongue * 1.15)


class _Shape:
    """Contours of the lips, (41, 2) each, from the controls."""

    def __init__(self, look: Look, c: dict[str, float]):
        self.half_width = look.mouth_half_width * (0.85 + 0.30 * c["width"]) * (1 - 0.46 * c["round"])
        self.gap = look.mouth_opening * c["jaw"] * (1 - c["press"])
        self.upper, self.lower = -0.2 * self.gap - 1.2 * c["tuck"], 0.8 * self.gap
        upper_lip = look.upper_lip * (1 + 0.3 * c["round"]) * (1 - 0.5 * c["press"]) * (1 - 0.15 * c["jaw"])
        self.lower_lip = look.lower_lip * (1 + 0.25 * c["round"]) * (1 - 0.5 * c["press"]) * (1 - 0.7 * c["tuck"])
        power = 0.85 - 0.35 * c["round"]
        x = self.half_width * _ALONG
        corner = -1.6 * (c["width"] - 0.5) * np.abs(_ALONG) ** 3
        inner_x = x * (0.92 - 0.08 * c["round"])
        self.inner_upper = np.stack([inner_x, self.upper * _ARCH**power + corner], axis=1)
        self.inner_lower = np.stack([inner_x, self.lower * _ARCH**power + corner], axis=1)
        self.outer_upper = np.stack([x, self.inner_upper[:, 1] - upper_lip * _ARCH**0.6 * _CUPID], axis=1)
        self.outer_lower = np.stack([x, self.inner_lower[:, 1] + self.lower_lip * _ARCH**0.55], axis=1)


def _row(canvas: Canvas, half_width: float, top: float, bottom: float, colour: np.ndarray) -> None:
    """A row of teeth: a box, shaded towards the sides, where the cheek is near."""
    for part, brightness in ((1.0, 0.8), (0.8, 0.92), (0.6, 1.0)):
        x = part * half_width
        canvas.fill(np.array(((-x, top), (x, top), (x, bottom), (-x, bottom))), colour * brightness)
