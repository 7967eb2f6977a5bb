"""How a speaker looks: sizes in pixels of the 224 x 224 head canvas, colours in RGB 0..255."""

from dataclasses import dataclass

import numpy as np

SIZE = 224
CENTRE_X, EYE_Y, NOSE_Y, MOUTH_Y, CHIN_Y = 112.0, 96.0, 136.0, 158.0, 200.0

Colour = tuple[float, float, float]
_SKINS = ((242, 208, 182), (228, 186, 152), (206, 160, 122), (184, 136, 100), (160, 116, 86), (140, 102, 78))
_HAIRS = ((40, 30, 26), (74, 50, 34), (120, 84, 50), (188, 154, 98), (92, 90, 90), (150, 146, 142), (112, 48, 26))
_IRISES = ((92, 64, 40), (66, 98, 132), (82, 110, 76), (52, 38, 30))


@dataclass(frozen=True)
class Look:
    """Everything that distinguishes one drawn speaker from another."""

    eye_spread: float  # centre of the face to an eye
    face_width: float  # factor
    nose_width: float  # factor
    mouth_half_width: float  # of the neutral closed mouth
    upper_lip: float  # thickness
    lower_lip: float  # thickness
    mouth_opening: float  # gap between the lips at jaw 1
    brow_height: float
    hairline: float  # y of the hair above the middle of the forehead
    long_hair: bool
    stubble: float  # 0..1
    skin: Colour
    lips: Colour
    teeth: Colour
    hair: Colour
    iris: Colour
    shirt: Colour
    background: tuple[Colour, Colour]
    light: tuple[float, float]  # x and y of the light's direction, z being 1
    scale: float  # of the head in the picture
    position: tuple[float, float]  # of the head in the picture, offset in pixels


def draw_look(generator: np.random.Generator) -> Look:
    """Draw a look at random."""
    between = generator.uniform
    skin = np.array(_SKINS[generator.integers(len(_SKINS))]) * between(0.94, 1.04)
    return Look(
        eye_spread=between(25.5, 28.5),
        face_width=between(0.93, 1.07),
        nose_width=between(0.85, 1.2),
        mouth_half_width=between(20.5, 24.5),
        upper_lip=between(5.0, 7.5),
        lower_lip=between(7.0, 9.5),
        mouth_opening=between(20, 24),
        brow_height=between(13.5, 17.5),
        hairline=between(42, 56),
        long_hair=bool(between() < 0.4),
        stubble=between(0, 0.5) if between() < 0.3 else 0.0,
        skin=_colour(skin),
        lips=_colour(skin * (0.82, 0.56, 0.56) + between(-6, 6, 3)),
        teeth=_colour(np.array((240, 236, 224)) * between(0.93, 1.0)),
        hair=_colour(np.array(_HAIRS[generator.integers(len(_HAIRS))]) * between(0.85, 1.15)),
        iris=_IRISES[generator.integers(len(_IRISES))],
        shirt=_colour(between(30, 220, 3)),
        background=(_colour(between(40, 200, 3)), _colour(between(40, 200, 3))),
        light=(between(-0.55, 0.55), between(-0.6, -0.2)),
        scale=between(0.86, 0.96),
        position=(between(-6, 6), between(-2, 8)),
    )


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = np.clip(values, 0, 255).tolist()
    return red, green, blue
