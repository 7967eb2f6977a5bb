"""68-point landmarks from files, as published for LRS2, LRS3 and VoxCeleb2: a pickled list with an array or None per frame of 1/25 s.

The files are read without executing anything from them: the unpickler knows how to build plain values and arrays of
numbers, and refuses every other name before it is looked up.
"""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

from espnet2_avsr_llm.data import FPS
from espnet2_avsr_llm.data.media import MediaError, duration

_TOLERANCE = 2  # frames by which landmarks and video may differ
_MOST_PARTS = 5  # of a video's path that its landmarks' path may repeat: dev/mp4/<speaker>/<video>/<clip>


class PrecomputedLandmarks:
    """Backend ``precomputed:FOLDER``: the landmarks of ``.../main/a/b.mp4`` are in ``FOLDER/main/a/b.pkl``.

    Args:
        folder: the unpacked archive.

    Raises:
        ValueError: no such folder.
    """

    def __init__(self, folder: str) -> None:
        if not folder or not Path(folder).is_dir():
            raise ValueError(f"precomputed:{folder} names no folder; expected precomputed:FOLDER with .pkl files of landmarks")
        self._folder = Path(folder)

    def track(self, path: str, first: int = 0) -> "PrecomputedTrack":
        """See ``LandmarkBackend``.

        Raises:
            MediaError: there is no file for this video, or it is none of landmarks; or there are more than two landmarks more
                or fewer than frames at 25 fps by the video's header (which may be a frame off), as for a video of another rate.
        """
        parts = Path(path).with_suffix(".pkl").parts
        candidates = [self._folder.joinpath(*parts[-n:]) for n in range(min(_MOST_PARTS, len(parts) - 1), 0, -1)]
        found = next((candidate for candidate in candidates if candidate.is_file()), None)
        if found is None:
            raise MediaError(path, f"no landmarks in {self._folder}", f"a file such as {candidates[-1]}", "unpack the landmark archive there")
        landmarks, frames = read_landmarks(found), round(duration(path, "video") * FPS)
        if abs(len(landmarks) - frames) > _TOLERANCE:
            fix = "convert the video to 25 fps and make its landmarks again, or have the faces searched (--landmarks litert)"
            raise MediaError(path, f"{len(landmarks)} landmarks in {found}", f"one for each of its {frames} frames at 25 fps", fix)
        return PrecomputedTrack(landmarks[first:])


class PrecomputedTrack:
    """Gives the landmarks of one frame after the other."""

    faces = 1
    free = True

    def __init__(self, landmarks: list[np.ndarray | None]) -> None:
        self._landmarks = iter(landmarks)

    def __call__(self, frame: np.ndarray) -> np.ndarray | None:
        """See ``Track``."""
        return next(self._landmarks, None)


def read_landmarks(path: Path) -> list[np.ndarray | None]:
    """Read a landmark file.

    Args:
        path: pickled list with, for each frame, (68, 2) numbers, or None.

    Returns:
        the same list, its arrays float32.

    Raises:
        MediaError: the pickle asks for anything but arrays of numbers, is damaged, or holds something else.
    """
    expected = "a pickled list of (68, 2) arrays or None"
    try:
        with open(path, "rb") as file:
            content = _ArrayUnpickler(file).load()
        landmarks = [None if points is None else np.asarray(getattr(points, "values", points), np.float32) for points in content]
    except Exception as error:  # a damaged pickle can raise anything
        raise MediaError(path, f"{type(error).__name__}: {error}", expected, "fetch it again, from where it was published") from error
    for number, points in enumerate(landmarks):
        if points is not None and (wrong := _wrong(points)):
            raise MediaError(path, f"{wrong} in frame {number}", expected, "use landmarks of 68 points, None where there is no face")
    return landmarks


def _wrong(points: np.ndarray) -> str:
    """What keeps an array from being the landmarks of a face; empty if nothing does."""
    if points.shape != (68, 2):
        return f"landmarks of shape {points.shape}"
    if not np.isfinite(points).all():
        return "NaN or infinite landmarks"
    return "" if np.ptp(points, axis=0).all() else "landmarks on one line"


class _Type:
    """Stands for a pickled ``numpy.dtype``: a number format."""

    def __init__(self, code: str, *_) -> None:
        self.dtype = np.dtype(code)
        if self.dtype.kind not in "fiu":
            raise pickle.UnpicklingError(f"an array of {code!r}, not of numbers")

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for a pickled ``numpy.ndarray``; numpy's own would trust the file with memory."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, content = state
        self.fill(content, kind, shape, "F" if fortran else "C")

    def fill(self, content: bytes, kind: _Type, shape: tuple, order: str) -> "_Array":
        """Take the values from bytes."""
        self.values = np.frombuffer(content, kind.dtype).reshape(shape, order=order)
        return self


class _Builder:
    """A function that a pickle may call, but not alter."""

    def __init__(self, build: Callable) -> None:
        self._build = build

    def __call__(self, *args):
        return self._build(*args)

    def __setstate__(self, state) -> None:
        raise pickle.UnpicklingError("the file tries to alter a function: refused")


_BUILT = {
    "_codecs.encode": _Builder(lambda text, encoding: text.encode("latin1")),  # bytes, in protocol 2
    "numpy.dtype": _Builder(_Type),
    "numpy.ndarray": _Builder(_Array),
}
for _module in ("numpy.core", "numpy._core"):
    _BUILT[f"{_module}.multiarray._reconstruct"] = _Builder(lambda *_: _Array())
    _BUILT[f"{_module}.numeric._frombuffer"] = _Builder(lambda *args: _Array().fill(*args))


class _ArrayUnpickler(pickle.Unpickler):
    """Builds plain values and arrays of numbers, nothing else."""

    def find_class(self, module: str, name: str) -> _Builder:
        """The builder of a name.

        Raises:
            pickle.UnpicklingError: any name that arrays of numbers do not need.
        """
        if f"{module}.{name}" not in _BUILT:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which landmarks do not need: refused, nothing was run")
        return _BUILT[f"{module}.{name}"]
