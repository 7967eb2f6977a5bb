"""Mouth regions of interest: landmarks (``landmarks.py``), crop (``crop.py``), models (``models.py``)."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from espnet2_avsr_llm.data import FPS

if TYPE_CHECKING:
    from espnet2_avsr_llm.data.roi.landmarks import Track

T = TypeVar("T")
MAX_GAP = FPS  # frames without a face that are interpolated: 1 s
STRIDE = 2  # frames from one look for the face to the next
_BLOCK = 32  # frames that one step does before the next step: 9 % faster than one by one, as code and models stay in the cache


class NoFaceError(Exception):
    """A clip in which no mouth can be cropped: no frame shows a face."""


class MouthCrop(NamedTuple):
    """The mouth in one frame.

    Attributes:
        patch: (96, 96) uint8 grey; black in a gap of more than one second without a face.
        transform: (2, 3) float64, affine map from the picture to the patch; NaN in such a gap.
        has_face: False where no face was found (short gaps are interpolated).
    """

    patch: np.ndarray
    transform: np.ndarray
    has_face: bool


class MouthROI(NamedTuple):
    """Mouth crops of a clip of T frames: stacks of the fields of ``MouthCrop``, and the most faces seen at once."""

    frames: np.ndarray
    transforms: np.ndarray
    has_face: np.ndarray
    faces: int


def mouth_crops(frames: Iterable[np.ndarray], track: "Track", crop: str = "auto_avsr", stride: int = STRIDE) -> Iterator[MouthCrop]:
    """Crop the mouth out of every frame of a clip, in memory that does not depend on its length.

    Args:
        frames: (H, W, 3) uint8 RGB each, at 25 fps.
        track: finds the landmarks of each frame.
        crop: name in ``crop.CROPS``.
        stride: look for the face in every ``stride``-th frame only and interpolate between. 2 takes a third less time
            than 1 and moves the crops of GRID clips by 0.15 pixels on average, 1.3 at most. A ``free`` track is asked for every frame.
            More than ``MAX_GAP`` + 1 would leave the frames between black.
    """
    from espnet2_avsr_llm.data.roi.crop import CROPS, fill_gaps, warp

    stride = 1 if track.free else stride
    waiting: deque[np.ndarray] = deque()  # decoded, not cropped yet
    seen: deque[bool] = deque()

    def landmarks() -> Iterator[np.ndarray | None]:
        has_face = False
        for t, frame in enumerate(_in_blocks(frames)):
            points = None if t % stride else track(frame)
            has_face = has_face if t % stride else points is not None
            waiting.append(frame)
            seen.append(has_face)
            yield points

    for transform in CROPS[crop](fill_gaps(_in_blocks(landmarks()))):
        yield MouthCrop(warp(waiting.popleft(), transform), transform, seen.popleft())


def _in_blocks(items: Iterable[T]) -> Iterator[T]:
    """The same items, taken ``_BLOCK`` at a time."""
    items = iter(items)
    while block := list(islice(items, _BLOCK)):
        yield from block


def mouth_roi(frames: Iterable[np.ndarray], backend: str = "litert", crop: str = "auto_avsr", stride: int = STRIDE) -> MouthROI:
    """All crops of a clip.

    Args:
        frames: (H, W, 3) uint8 RGB each, at 25 fps.
        backend: see ``landmarks.get_backend``.
        crop, stride: see ``mouth_crops``.

    Raises:
        NoFaceError: no frame has a face, or the landmarks of one are none of a face.
    """
    from espnet2_avsr_llm.data.roi.landmarks import get_backend

    track = get_backend(backend).track("", 0)
    crops = list(mouth_crops(frames, track, crop, stride))
    if not any(found.has_face for found in crops):
        raise NoFaceError(f"found no face in any of {len(crops)} frames; expected one: remove the clip from the list")
    return MouthROI(*(np.stack(field) for field in zip(*crops)), track.faces)
