"""The mouth crop of auto_avsr (arXiv:2303.14307) from 68 landmarks per frame.

Missing frames are interpolated, the face shape is smoothed over time, a similarity brings the stable
points onto a mean face in a 256 x 256 canvas, and 96 x 96 pixels around the mouth are cut out of it.

Shapes: T frames, H height, W width; points are (x, y) in pixels.
"""

import cv2
import numpy as np

from espnet2_avsr_llm.data.media import ROI_SIZE

CANVAS = 256
_SMOOTH = 6  # frames on each side
_MOUTH = slice(48, 68)
# Stable points (index in the 68: x, y in the canvas) of the mean face of LRW, as auto_avsr uses it.
_MEAN_FACE = {
    28: (128.49, 106.92),
    33: (128.87, 137.30),
    36: (92.52, 94.37),
    39: (112.77, 94.94),
    42: (145.53, 94.53),
    45: (166.68, 93.57),
    48: (107.17, 157.20),
    54: (152.19, 156.99),
}
_STABLE = list(_MEAN_FACE)
_TARGET = np.array(list(_MEAN_FACE.values()), np.float32)


def fill_missing(landmarks: np.ndarray) -> np.ndarray:
    """Interpolate frames without a face linearly between their neighbours; copy the nearest at the ends.

    Args:
        landmarks: (T, 68, 2), NaN where there is no face, at least one frame with one.

    Returns:
        (T, 68, 2) without NaN.
    """
    t = np.arange(len(landmarks))
    seen = ~np.isnan(landmarks[:, 0, 0])
    flat = landmarks.reshape(len(landmarks), -1)
    filled = [np.interp(t, t[seen], column[seen]) for column in flat.T]
    return np.stack(filled, 1).reshape(landmarks.shape)


def smooth(landmarks: np.ndarray) -> np.ndarray:
    """Replace each frame's shape by the mean over up to 6 frames on each side; its position stays.

    Args:
        landmarks: (T, 68, 2). The window is symmetric and shrinks towards the ends of the clip.

    Returns:
        (T, 68, 2) whose centroids are those of ``landmarks``.
    """
    last = len(landmarks) - 1
    centred = landmarks - landmarks.mean(1, keepdims=True)
    margins = [min(_SMOOTH, t, last - t) for t in range(last + 1)]
    shapes = np.stack([centred[t - m : t + m + 1].mean(0) for t, m in enumerate(margins)])
    return shapes + landmarks.mean(1, keepdims=True)


def crop_transforms(landmarks: np.ndarray) -> np.ndarray:
    """Find, for each frame, the affine map from the picture to the 96 x 96 mouth patch.

    Args:
        landmarks: (T, 68, 2) without NaN.

    Returns:
        (T, 2, 3) float64: similarity to the canvas, then the shift by the patch's corner.
    """
    return np.stack([_transform(points) for points in smooth(landmarks)])


def _transform(points: np.ndarray) -> np.ndarray:
    """Affine map (2, 3) of one frame with the smoothed points (68, 2)."""
    stable = points[_STABLE].astype(np.float32)
    matrix, _ = cv2.estimateAffinePartial2D(stable, _TARGET, method=cv2.LMEDS)
    if matrix is None:
        raise ValueError("the face landmarks of a frame all coincide: expected 68 distinct points")
    mouth = points[_MOUTH].mean(0) @ matrix[:, :2].T + matrix[:, 2]
    # The patch is kept inside the canvas; auto_avsr fails or cuts it there.
    matrix[:, 2] -= np.rint(mouth - ROI_SIZE / 2).clip(0, CANVAS - ROI_SIZE)
    return matrix


def warp(frames: np.ndarray, transforms: np.ndarray) -> np.ndarray:
    """Cut the patches out: one bilinear warp per frame, black outside the picture.

    Equal to warping the canvas and cutting it, as the corner is a whole number of pixels.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        transforms: (T, 2, 3) of ``crop_transforms``.

    Returns:
        (T, 96, 96) uint8 grey.
    """
    size = (ROI_SIZE, ROI_SIZE)
    patches = (cv2.warpAffine(frame, m, size) for frame, m in zip(frames, transforms, strict=True))
    return np.stack([cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY) for patch in patches])
