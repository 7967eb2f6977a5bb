"""The two published mouth crops, from 68 landmarks per frame: auto_avsr's (arXiv:2303.14307) and AV-HuBERT's (arXiv:2201.02184).

Both smooth the landmarks over time, bring stable points onto a mean face in a 256 x 256 canvas by a similarity, and
cut 96 x 96 pixels around the mouth out of it. Everything works on a stream of frames and looks at most
``MAX_GAP`` + 12 frames ahead, so that a clip of any length takes the same memory.

Shapes: H height, W width; points are (x, y) in pixels.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import cv2
import numpy as np

from espnet2_avsr_llm.data.media import ROI_SIZE
from espnet2_avsr_llm.data.roi import MAX_GAP, NoFaceError

CANVAS = 256
_MOUTH = slice(48, 68)
# Index in the 68: (x, y) in the canvas, of the mean face of LRW that both programs use.
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
_AUTO_AVSR = list(_MEAN_FACE)  # the stable points of each program
_AVHUBERT = [33, 36, 39, 42, 45]
_AUTO_AVSR_TARGET = np.array([_MEAN_FACE[i] for i in _AUTO_AVSR], np.float32)
_AVHUBERT_TARGET = np.array([_MEAN_FACE[i] for i in _AVHUBERT]) @ [1, 1j]
_SMOOTH = 6  # frames on each side, auto_avsr
_WINDOW = 12  # frames from the current one on, AV-HuBERT
_MOST_SCALE = 100  # crop pixels per picture pixel: of a face whose eyes are less than a pixel apart
_NO_FACE = np.full((68, 2), np.nan, np.float32)
_NO_CROP = np.full((2, 3), np.nan)


class LandmarkError(NoFaceError):
    """Landmarks that are none of a face: no similarity leads from them to the mean face."""


def fill_gaps(found: Iterable[np.ndarray | None]) -> Iterator[np.ndarray]:
    """Interpolate up to ``MAX_GAP`` frames without a face linearly; copy the nearest at the ends of the clip.

    Args:
        found: for each frame (68, 2), or None where there is no face.

    Yields:
        for each frame (68, 2), NaN in longer gaps.
    """
    last, missing = None, 0
    for points in found:
        if points is None:
            missing += 1
            if missing > MAX_GAP:
                yield from [_NO_FACE] * (missing if missing == MAX_GAP + 1 else 1)
            continue
        if missing <= MAX_GAP:
            before = points if last is None else last
            yield from (before + (points - before) * (i + 1) / (missing + 1) for i in range(missing))
        yield points
        last, missing = points, 0
    if missing <= MAX_GAP:
        yield from [_NO_FACE if last is None else last] * missing


def auto_avsr(landmarks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """auto_avsr's crop: the shape of the face is smoothed, its position is not.

    Args:
        landmarks: for each frame (68, 2), NaN where it is to be left black.

    Yields:
        for each frame the affine map (2, 3) from the picture to the 96 x 96 patch; NaN where the landmarks are.

    Raises:
        LandmarkError: the stable points of a frame coincide.
    """
    for seen, run in _runs(landmarks):
        yield from map(_auto_avsr_transform, smooth(run)) if seen else (_NO_CROP for _ in run)


def smooth(run: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Replace each frame's shape (68, 2) by the mean over up to 6 frames on each side; its centroid stays.

    The window is symmetric and shrinks towards the ends of the run.
    """
    known: list[np.ndarray] = []
    sums = [np.zeros((68, 2))]  # of the points of all frames before
    for points in run:
        known.append(points)
        sums.append(sums[-1] + points)
        t = len(known) - 1 - _SMOOTH
        if t >= 0:
            yield _smoothed(known, sums, t, min(_SMOOTH, t))
    for t in range(max(0, len(known) - _SMOOTH), len(known)):
        yield _smoothed(known, sums, t, min(t, len(known) - 1 - t))


def _smoothed(known: list[np.ndarray], sums: list[np.ndarray], t: int, margin: int) -> np.ndarray:
    shape = (sums[t + margin + 1] - sums[t - margin]) / (2 * margin + 1)
    return shape + (known[t] - shape).mean(0)


def _auto_avsr_transform(points: np.ndarray) -> np.ndarray:
    matrix, _ = cv2.estimateAffinePartial2D(points[_AUTO_AVSR].astype(np.float32), _AUTO_AVSR_TARGET, method=cv2.LMEDS)
    return _around_mouth(matrix, points)


def avhubert(landmarks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """AV-HuBERT's crop: the similarity is fitted to the mean of this and the next 11 frames, the mouth is that of the frame.

    The last 11 frames take the last similarity fitted. Args, yields and raises as of ``auto_avsr``.
    """
    for seen, run in _runs(landmarks):
        yield from _avhubert_transforms(run) if seen else (_NO_CROP for _ in run)


def _avhubert_transforms(run: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    window: deque[np.ndarray] = deque()
    similarity = None
    for points in run:
        window.append(points)
        if len(window) == _WINDOW:
            similarity = _least_squares(np.mean(window, axis=0))
            yield _around_mouth(similarity, window.popleft())
    if similarity is None:  # fewer than 12 frames
        similarity = _least_squares(np.mean(window, axis=0))
    yield from (_around_mouth(similarity, points) for points in window)


def _least_squares(points: np.ndarray) -> np.ndarray | None:
    """Similarity (2, 3) of least squares from points (68, 2) to the mean face, in closed form by complex numbers; None if there is none."""
    source = points[_AVHUBERT].astype(np.float64) @ [1, 1j]
    centred = source - source.mean()
    if not (spread := np.vdot(centred, centred).real):
        return None
    turn = np.vdot(centred, _AVHUBERT_TARGET) / spread
    shift = _AVHUBERT_TARGET.mean() - turn * source.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _around_mouth(matrix: np.ndarray | None, points: np.ndarray) -> np.ndarray:
    """Shift a map to the canvas (2, 3) so that it leads to the patch around the mouth of ``points`` (68, 2)."""
    if matrix is None or not np.hypot(*matrix[:, 0]) <= _MOST_SCALE:
        raise LandmarkError("found the stable face landmarks of a frame in one point; expected those of a face: make or fetch the landmarks again")
    mouth = points[_MOUTH].mean(0) @ matrix[:, :2].T + matrix[:, 2]
    # The patch is kept inside the canvas, as AV-HuBERT does; auto_avsr fails or cuts it there.
    shifted = matrix.copy()
    shifted[:, 2] -= np.rint(mouth - ROI_SIZE / 2).clip(0, CANVAS - ROI_SIZE)
    return shifted


def _runs(landmarks: Iterable[np.ndarray]) -> Iterator[tuple[bool, Iterator[np.ndarray]]]:
    """Stretches of frames with a face (True) and without."""
    return groupby(landmarks, key=lambda points: not np.isnan(points[0, 0]))


CROPS: dict[str, Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]] = {"auto_avsr": auto_avsr, "avhubert": avhubert}


def warp(frame: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Cut a patch out by one bilinear warp, black outside the picture.

    Equal to warping the canvas and cutting it, as the corner is a whole number of pixels.

    Args:
        frame: (H, W, 3) uint8 RGB.
        matrix: (2, 3) of a crop; a map of NaN gives a black patch.

    Returns:
        (96, 96) uint8 grey.
    """
    if np.isnan(matrix[0, 0]):
        return np.zeros((ROI_SIZE, ROI_SIZE), np.uint8)
    return cv2.cvtColor(cv2.warpAffine(frame, matrix, (ROI_SIZE, ROI_SIZE)), cv2.COLOR_RGB2GRAY)
