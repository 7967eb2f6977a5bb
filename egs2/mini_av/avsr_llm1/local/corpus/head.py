"""The head without eyes and mouth, shaded from a height map, at every jaw opening; and what is behind it.

Pictures are 224 x 224; the head has premultiplied alpha as its fourth channel.
"""

import cv2
import numpy as np

from corpus.look import CENTRE_X, CHIN_Y, EYE_Y, MOUTH_Y, NOSE_Y, SIZE, Look

JAW_LEVELS = 13
_JAW_DROP = 13.0  # pixels by which the chin falls at jaw 1
_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
# outline of the face: half width at some heights, from the top of the skull to the chin
_OUTLINE_Y = (20, 24, 32, 45, 62, 95, 125, 150, 170, 185, 194, 199, CHIN_Y + 1)
_OUTLINE_W = (0, 20, 36, 50, 60, 65, 62, 56, 48, 39, 29, 18, 0)
# bumps of the height map: x beside the centre (drawn on both sides), y, width, height, amplitude
_BUMPS = (
    (0, 104, 6, 14, 6), (0, 120, 6.5, 10, 7), (0, 130, 7.5, 6, 9), (9, 133, 4.5, 4, 5), (27, EYE_Y, 13, 8, -7),
    (27, 82, 16, 4, 3), (38, 124, 15, 13, 5), (0, 147, 2.2, 5, -1.2), (0, 174, 13, 3.5, -3), (0, 189, 12, 8, 5),
    (0, MOUTH_Y, 22, 13, 5), (24, 146, 3.5, 10, -1.6), (0, 60, 40, 18, 4),
)  # fmt: skip


def draw_head(look: Look, generator: np.random.Generator) -> list[np.ndarray]:
    """The head at each of `JAW_LEVELS` jaw openings.

    Args:
        look: the speaker's look.
        generator: source of skin and hair texture.

    Returns:
        (224, 224, 4) uint8 pictures, RGB premultiplied by alpha, from closed to open.
    """
    width = _outline(look)
    picture = _skin(look, width, generator)
    _features(picture, look)
    face = np.clip(width[:, None] - np.abs(_X - CENTRE_X), 0, 1).astype(np.float32)
    ears = sum(_bump(side * (66 * look.face_width), 108, 6, 12) for side in (-1, 1))
    alpha = np.maximum(face, np.clip(ears * 4 - 1.5, 0, 1))
    picture, alpha = _hair(picture, alpha, look, generator)
    head = np.dstack([np.clip(picture, 0, 255), 255 * np.ones_like(alpha)]) * alpha[..., None]
    return [_open_jaw(head.astype(np.uint8), level / (JAW_LEVELS - 1)) for level in range(JAW_LEVELS)]


def draw_background(look: Look, generator: np.random.Generator) -> np.ndarray:
    """Wall, neck and shirt behind the head, (224, 224, 3) uint8."""
    top, bottom = (np.array(colour, np.float32) for colour in look.background)
    wall = top + (bottom - top) * (_Y / SIZE)[..., None]
    for _ in range(4):  # blurred furniture
        x, y, w, h = generator.uniform((0, 0, 20, 20), (SIZE, SIZE, 70, 90))
        box = ((np.abs(_X - x) < w / 2) & (np.abs(_Y - y) < h / 2)).astype(np.float32)
        wall += cv2.GaussianBlur(box, (0, 0), 6)[..., None] * generator.uniform(-35, 35, 3).astype(np.float32)
    x = np.abs(_X - CENTRE_X - look.position[0]) / look.scale
    y = (_Y - CENTRE_X - look.position[1]) / look.scale + CENTRE_X
    shirt = np.clip((y - 212 - 0.18 * x) / 2 + (x > 22), 0, 1) * (y > 205 + 0.0025 * x * x)
    neck = np.clip(34 + 0.02 * np.maximum(y - 190, 0) ** 1.5 - x, 0, 1) * (y > 120)
    for mask, colour, shade in ((neck, look.skin, 0.62), (shirt, look.shirt, 0.9)):
        mask = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.8)[..., None]
        wall += mask * (np.array(colour, np.float32) * shade * (1 - 0.1 * x / 80)[..., None] - wall)
    return np.clip(wall, 0, 255).astype(np.uint8)


def _outline(look: Look) -> np.ndarray:
    width = np.interp(np.arange(SIZE), _OUTLINE_Y, _OUTLINE_W).astype(np.float32) * look.face_width
    return np.convolve(width, np.ones(7) / 7, "same")


def _bump(dx: float, y: float, sigma_x: float, sigma_y: float) -> np.ndarray:
    return np.exp(-0.5 * (((_X - CENTRE_X - dx) / sigma_x) ** 2 + ((_Y - y) / sigma_y) ** 2))


def _skin(look: Look, width: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Lambert shading of the height map by the speaker's light, times skin colour, (224, 224, 3) float."""
    across = np.clip(np.abs(_X - CENTRE_X) / np.maximum(width, 1)[:, None], 0, 0.98)
    along = np.clip((_Y - 108) / 100, -0.98, 0.98)
    height = 62 * np.sqrt(1 - across**2) * np.sqrt(1 - 0.6 * along**2)
    for dx, y, sigma_x, sigma_y, amplitude in _BUMPS:
        sigma_x *= look.nose_width if y < NOSE_Y and dx < 10 else 1
        for side in (-1, 1) if dx else (0,):
            height += amplitude * _bump(side * dx, y, sigma_x, sigma_y)
    slope_y, slope_x = np.gradient(cv2.GaussianBlur(height, (0, 0), 1.2))
    light_x, light_y = look.light
    facing = (1 - slope_x * light_x - slope_y * light_y) / np.sqrt(1 + slope_x**2 + slope_y**2)
    shade = 0.5 + 0.56 * np.clip(facing / np.sqrt(1 + light_x**2 + light_y**2), 0, 1)
    grain = cv2.GaussianBlur(generator.normal(0, 1, (SIZE, SIZE)).astype(np.float32), (0, 0), 1.0) * 5
    flush = sum(_bump(side * 38, 126, 14, 11) for side in (-1, 1))[..., None] * np.float32((6, -6, -5))
    return np.array(look.skin, np.float32) * shade[..., None] + grain[..., None] + flush


def _features(picture: np.ndarray, look: Look) -> None:
    """Brows, nostrils, the shadow under the nose and stubble, painted on the skin."""
    hair = np.array(look.hair, np.float32)
    for side in (-1, 1):
        arch = EYE_Y - look.brow_height + 0.012 * (np.abs(_X - CENTRE_X) - look.eye_spread - 3) ** 2
        reach = np.clip(15 - np.abs(side * (_X - CENTRE_X) - look.eye_spread - 1), 0, 3) / 3
        _tint(picture, np.clip(2.6 - np.abs(_Y - arch), 0, 1) * reach * 0.85, hair)
        _tint(picture, 0.8 * _bump(side * 5.8 * look.nose_width, NOSE_Y + 1.2, 2.4, 1.3), np.float32((30, 15, 12)))
    _tint(picture, 0.25 * _bump(0, NOSE_Y + 5, 10, 2.2), np.float32((50, 25, 20)))
    beard = np.clip((_Y - 142) / 10, 0, 1) * np.clip((np.abs(_X - CENTRE_X) + _Y - 165) / 12, 0, 1)
    _tint(picture, look.stubble * 0.6 * beard, hair)


def _tint(picture: np.ndarray, amount: np.ndarray, colour: np.ndarray) -> None:
    picture += np.clip(amount, 0, 1).astype(np.float32)[..., None] * (colour - picture)


def _hair(
    skin: np.ndarray, alpha: np.ndarray, look: Look, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Hair over the skull, and behind the face down to the ears or to the shoulders."""
    x = np.abs(_X - CENTRE_X)
    line = look.hairline + 0.0003 * x**3  # falls towards the temples
    skull = np.clip(1 - (np.hypot(x / (72 * look.face_width), (_Y - 88) / 76) - 1) * 30, 0, 1)
    front = cv2.GaussianBlur(skull * np.clip((line - _Y) / 2 + 0.5, 0, 1), (0, 0), 0.9)[..., None]
    bottom = 214 if look.long_hair else 104
    sides = np.clip(74 * look.face_width - x, 0, 1) * np.clip((bottom - _Y) / 6, 0, 1) * (_Y > 88)
    behind = cv2.GaussianBlur(np.maximum(sides, skull * (_Y <= 88)), (0, 0), 0.9)
    streaks = cv2.GaussianBlur(generator.normal(0, 1, (SIZE, SIZE)).astype(np.float32), (0, 0), 0.7, sigmaY=6) * 60
    hair = np.array(look.hair, np.float32) * (0.85 + 0.3 * (1 - _Y / SIZE))[..., None] + streaks[..., None]
    cover = np.where(behind > 0, alpha, 1)[..., None]  # where hair is behind, the soft edge of the face shows hair
    picture = skin * cover + hair * (1 - cover)
    return picture + front * (hair - picture), np.maximum(alpha, np.maximum(behind, front[..., 0]))


def _open_jaw(head: np.ndarray, jaw: float) -> np.ndarray:
    """Move everything below the mouth down; the skin in between stretches."""
    rows = np.arange(SIZE, dtype=np.float32)
    ramp = np.clip((rows - MOUTH_Y + 4) / 24, 0, 1)
    moved = rows + jaw * _JAW_DROP * ramp * ramp * (3 - 2 * ramp)
    source = np.interp(rows, moved, rows).astype(np.float32)
    return cv2.remap(head, _X, np.ascontiguousarray(np.broadcast_to(source[:, None], _X.shape)), cv2.INTER_LINEAR)
