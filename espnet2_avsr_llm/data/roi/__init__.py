"""Mouth regions of interest: landmarks (``landmarks.py``), crop (``crop.py``), models (``models.py``)."""

from typing import NamedTuple

import numpy as np


class NoFaceError(Exception):
    """No frame of a clip shows a face."""


class MouthROI(NamedTuple):
    """Mouth crops of a clip of T frames.

    Attributes:
        frames: (T, 96, 96) uint8 grey.
        transforms: (T, 2, 3) float64, affine map from the picture to the crop.
        has_face: (T,) bool, False where no face was found and the landmarks were interpolated.
    """

    frames: np.ndarray
    transforms: np.ndarray
    has_face: np.ndarray


def mouth_roi(frames: np.ndarray, backend: str = "litert", stride: int = 1) -> MouthROI:
    """Crop the mouth out of every frame of a clip.

    Args:
        frames: (T, H, W, 3) uint8 RGB at 25 fps.
        backend: name in ``landmarks.BACKENDS``.
        stride: look for the face in every ``stride``-th frame only and interpolate between; 2 halves the time
            and moves the crops of GRID clips by 0.15 pixels on average.

    Returns:
        as many crops as frames; frames without a face are interpolated.

    Raises:
        NoFaceError: no frame has a face.
    """
    from espnet2_avsr_llm.data.roi.crop import crop_transforms, fill_missing, warp
    from espnet2_avsr_llm.data.roi.landmarks import get_backend

    found = get_backend(backend).landmarks(frames[::stride])
    seen = ~np.isnan(found[:, 0, 0])
    if not seen.any():
        raise NoFaceError(f"found no face in any of {len(frames)} frames; expected one: remove the clip from the list")
    landmarks = np.full((len(frames), *found.shape[1:]), np.nan)
    landmarks[::stride] = found
    transforms = crop_transforms(fill_missing(landmarks))
    return MouthROI(warp(frames, transforms), transforms, seen.repeat(stride)[: len(frames)])
