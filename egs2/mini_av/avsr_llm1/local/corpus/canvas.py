"""A small RGBA picture drawn several times too large and averaged down, so that edges move by fractions of a pixel."""

import cv2
import numpy as np

_CIRCLE = np.linspace(0, 2 * np.pi, 32, endpoint=False)


class Canvas:
    """A transparent picture to draw on.

    Args:
        width: in pixels, after averaging.
        height: in pixels, after averaging.
        origin: where the coordinates of the drawing methods begin, in pixels from the upper left corner.
        fine: how many times larger the drawing is.
    """

    def __init__(self, width: int, height: int, origin: tuple[float, float], fine: int):
        self.size, self.origin, self.fine = (width, height), np.array(origin), fine
        self.image = np.zeros((height * fine, width * fine, 4), np.uint8)

    def fill(self, points: np.ndarray, colour: np.ndarray) -> None:
        """Fill a polygon, (N, 2) points, with an RGB colour."""
        cv2.fillPoly(self.image, [self._fixed(points)], _rgba(colour), shift=4)

    def line(self, points: np.ndarray, colour: np.ndarray, thickness: float) -> None:
        """Draw a polyline, (N, 2) points, with an RGB colour."""
        width = max(1, round(thickness * self.fine))
        cv2.polylines(self.image, [self._fixed(points)], False, _rgba(colour), width, shift=4)

    def ellipse(self, centre: tuple[float, float], axes: tuple[float, float], colour: np.ndarray) -> None:
        """Fill an ellipse of the half axes given."""
        self.fill(np.array(centre) + np.stack([axes[0] * np.cos(_CIRCLE), axes[1] * np.sin(_CIRCLE)], axis=1), colour)

    def behind(self, colour: tuple[int, int, int]) -> "Canvas":
        """Another canvas of the same size, all of one colour."""
        other = Canvas(*self.size, self.origin, self.fine)
        other.image[:] = (*colour, 255)
        return other

    def cut_out(self, points: np.ndarray, other: "Canvas") -> None:
        """Show another canvas through a polygon."""
        hole = np.zeros(self.image.shape[:2], np.uint8)
        cv2.fillPoly(hole, [self._fixed(points)], 255, shift=4)
        cv2.copyTo(other.image, hole, self.image)

    def average(self) -> np.ndarray:
        """The picture at its size, (height, width, 4) uint8, premultiplied because it was drawn on black."""
        return cv2.resize(self.image, self.size, interpolation=cv2.INTER_AREA)

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        """Coordinates in the fixed-point form (4 bits) that OpenCV draws from."""
        return np.round((points + self.origin) * (16 * self.fine)).astype(np.int32)


def blend(region: np.ndarray, patch: np.ndarray) -> None:
    """Lay a premultiplied patch over a region of a premultiplied picture of the same size, in place."""
    region[:] = cv2.add(cv2.multiply(region, cv2.merge([255 - patch[..., 3]] * 4), scale=1 / 255), patch)


def _rgba(colour: np.ndarray) -> tuple[float, ...]:
    return (*np.clip(colour, 0, 255).tolist(), 255.0)
