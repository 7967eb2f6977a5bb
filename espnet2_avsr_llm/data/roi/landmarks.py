"""68 face landmarks per frame from the BlazeFace detector (arXiv:1907.05047) and the face mesh
(arXiv:1907.06724), run by LiteRT.

The detector looks at the whole picture until a face is found; from then on the mesh of one frame says
where to look in the next. Written from the public description of the two models.

Shapes: T frames, H height, W width, A = 896 anchors; points are (x, y) in pixels.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from espnet2_avsr_llm.data.roi.models import DETECTOR, MESH, load_model

# Mesh vertices in the order of the 68 points of iBUG (jaw, brows, nose, eyes, outer and inner lips).
MESH_TO_68 = np.array(
    [162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389]
    + [71, 63, 105, 66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305]
    + [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380]
    + [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87]
)
_MESH_EYES = (33, 263)  # outer corners: the line between them is level in the mesh's input
_DETECTOR_SIZE, _MESH_SIZE = 128, 192
_MIN_OVERLAP = 0.3
_MARGIN = 1.5  # the mesh sees 1.5 times the longer side of the face


class Track(Protocol):
    """Follows one face through a clip.

    Attributes:
        faces: the most faces seen at once, where they were looked for.
        free: looking costs nothing (the landmarks are known), so every frame is to be looked at, whatever the stride.
    """

    faces: int
    free: bool

    def __call__(self, frame: np.ndarray) -> np.ndarray | None:
        """Landmarks (68, 2) of the next frame (H, W, 3) uint8 RGB, or None where it has no face."""


class LandmarkBackend(Protocol):
    """What finds the landmarks; see ``get_backend``."""

    def track(self, path: str, first: int) -> Track:
        """Begin a clip: frames ``first``, ``first`` + 1, ... of the video file ``path``."""


class Region(NamedTuple):
    """A rotated square in a picture: centre and side in pixels, clockwise angle in radians."""

    x: float
    y: float
    side: float
    angle: float

    def matrix(self, size: int) -> np.ndarray:
        """Affine (2, 3) from a ``size`` x ``size`` view of the square to the picture."""
        c, s = np.cos(self.angle) * self.side / size, np.sin(self.angle) * self.side / size
        half = size / 2
        return np.array([[c, -s, self.x - half * (c - s)], [s, c, self.y - half * (s + c)]])


class LiteRTFaceMesh:
    """Detector and mesh on the CPU, one thread.

    Raises:
        FileNotFoundError: the model files are missing (see ``roi/models.py``).
    """

    def __init__(self) -> None:
        self._detect, self._mesh = _interpreter(DETECTOR), _interpreter(MESH)
        self._anchors = _anchors()

    def track(self, path: str = "", first: int = 0) -> "MeshTrack":
        """See ``LandmarkBackend``."""
        return MeshTrack(self)

    def find(self, frame: np.ndarray) -> list[Region]:
        """Regions of the faces that the detector finds in (H, W, 3), the largest first."""
        height, width = frame.shape[:2]
        whole = Region(width / 2, height / 2, max(height, width), 0.0).matrix(_DETECTOR_SIZE)
        raw, logits = self._detect(_view(frame, whole, _DETECTOR_SIZE, cv2.BORDER_CONSTANT), 2 / 255, -1)
        logits = logits.reshape(-1)
        strong = logits >= 0  # score of at least 0.5
        # centre, size, then six key points, the first two the eyes; all but the size relative to the anchor
        boxes = raw.reshape(-1, 16)[strong] / _DETECTOR_SIZE
        boxes[:, :2] += self._anchors[strong]
        boxes[:, 4:] += np.tile(self._anchors[strong], 6)
        faces = _merge_overlapping(boxes, 1 / (1 + np.exp(-logits[strong])))
        faces.sort(key=lambda face: face[2] * face[3], reverse=True)
        return [_region_of_box(face * _DETECTOR_SIZE, whole) for face in faces]

    def mesh(self, frame: np.ndarray, region: Region) -> np.ndarray | None:
        """The 468 mesh points (468, 2) of the face in ``region``, or None when there is none."""
        matrix = region.matrix(_MESH_SIZE)
        raw, logit = self._mesh(_view(frame, matrix, _MESH_SIZE, cv2.BORDER_REPLICATE), 1 / 255, 0)
        if logit.item() <= 0:  # probability of a face at most 0.5
            return None
        points = raw.reshape(-1, 3)[:, :2]
        return points @ matrix[:, :2].T.astype(np.float32) + matrix[:, 2].astype(np.float32)


class MeshTrack:
    """Follows a face by its mesh. At first it is the largest; a lost one is looked for where it was, else the largest again.

    While a face is followed nobody looks for others: a larger one that comes in later is neither counted nor taken.
    """

    free = False

    def __init__(self, model: LiteRTFaceMesh) -> None:
        self.faces = 0
        self._model = model
        self._region: Region | None = None
        self._last: Region | None = None

    def __call__(self, frame: np.ndarray) -> np.ndarray | None:
        """See ``Track``."""
        mesh = self._model.mesh(frame, self._region) if self._region else None
        if mesh is None and (found := self._find(frame)):
            mesh = self._model.mesh(frame, found)
        self._region = None if mesh is None else _region_of_mesh(mesh)
        self._last = self._region or self._last
        return None if mesh is None else mesh[MESH_TO_68]

    def _find(self, frame: np.ndarray) -> Region | None:
        found = self._model.find(frame)
        self.faces = max(self.faces, len(found))
        last = self._last
        near = [face for face in found if last and np.hypot(face.x - last.x, face.y - last.y) < last.side / 2]
        return next(iter(near or found), None)


def _litert(_: str) -> LandmarkBackend:
    return LiteRTFaceMesh()


def _mediapipe(_: str) -> LandmarkBackend:
    from espnet2_avsr_llm.data.roi.mediapipe_mesh import MediapipeFaceMesh

    return MediapipeFaceMesh()


def _precomputed(folder: str) -> LandmarkBackend:
    from espnet2_avsr_llm.data.roi.precomputed import PrecomputedLandmarks

    return PrecomputedLandmarks(folder)


BACKENDS: dict[str, Callable[[str], LandmarkBackend]] = {"litert": _litert, "mediapipe": _mediapipe, "precomputed": _precomputed}


@functools.lru_cache
def get_backend(name: str) -> LandmarkBackend:
    """A backend, made once per process.

    Args:
        name: ``litert``, ``mediapipe``, or ``precomputed:FOLDER``.

    Raises:
        ValueError: no such backend.
    """
    kind, _, argument = name.partition(":")
    if kind not in BACKENDS:
        raise ValueError(f"no landmark backend {name!r}: choose from {', '.join(sorted(BACKENDS))}")
    return BACKENDS[kind](argument)


def _interpreter(name: str) -> Callable[[np.ndarray, float, float], list[np.ndarray]]:
    """Load a model; the result maps (size, size, 3) uint8, times a factor, plus an offset, to the model's outputs."""
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(model_content=load_model(name), num_threads=1)
    model.allocate_tensors()
    (source,) = model.get_input_details()
    outputs = [output["index"] for output in model.get_output_details()]
    inputs = model.tensor(source["index"])

    def run(view: np.ndarray, factor: float, offset: float) -> list[np.ndarray]:
        np.multiply(view, np.float32(factor), out=inputs()[0])
        if offset:
            inputs()[0] += np.float32(offset)
        model.invoke()
        return [model.get_tensor(index) for index in outputs]

    return run


def _view(frame: np.ndarray, matrix: np.ndarray, size: int, border: int) -> np.ndarray:
    """(size, size, 3) uint8: what ``matrix`` (view to picture) shows of ``frame``."""
    return cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border)


def _anchors() -> np.ndarray:
    """Anchor centres (A, 2) in [0, 1]: 2 on each cell of a 16 x 16 grid, then 6 on each of 8 x 8."""
    centres = []
    for cells, per_cell in ((16, 2), (8, 6)):
        y, x = np.divmod(np.arange(cells * cells), cells)
        centres.append(np.repeat((np.stack([x, y], 1) + 0.5) / cells, per_cell, axis=0))
    return np.concatenate(centres).astype(np.float32)


def _merge_overlapping(boxes: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:
    """Weighted non-maximum suppression: mean by score of the boxes (n, 16) that overlap the best one."""
    faces = []
    while len(boxes):
        near = _overlap(boxes[scores.argmax()], boxes) > _MIN_OVERLAP
        near[scores.argmax()] = True  # even a degenerate box leaves the list
        faces.append(np.average(boxes[near], axis=0, weights=scores[near]))
        boxes, scores = boxes[~near], scores[~near]
    return faces


def _overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with (n, 16) boxes, each centre x, y, width, height first."""
    low = np.maximum(box[:2] - box[2:4] / 2, boxes[:, :2] - boxes[:, 2:4] / 2)
    high = np.minimum(box[:2] + box[2:4] / 2, boxes[:, :2] + boxes[:, 2:4] / 2)
    common = (high - low).clip(0).prod(1)
    return common / np.maximum(box[2:4].prod() + boxes[:, 2:4].prod(1) - common, 1e-9)


def _region_of_box(face: np.ndarray, whole: np.ndarray) -> Region:
    """Where the mesh looks first, given a detected face (16,) in pixels of the detector's view ``whole``."""
    (x, y), right, left = (whole @ [*point, 1] for point in (face[:2], face[4:6], face[6:8]))
    return Region(x, y, max(face[2:4]) * whole[0, 0] * _MARGIN, np.arctan2(*(left - right)[::-1]))


def _region_of_mesh(mesh: np.ndarray) -> Region:
    """Where the mesh of the next frame looks, given the points (468, 2) of this one."""
    columns = np.ascontiguousarray(mesh.T)
    (left, top), (right, bottom) = columns.min(1), columns.max(1)
    dx, dy = mesh[_MESH_EYES[1]] - mesh[_MESH_EYES[0]]
    return Region((left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) * _MARGIN, np.arctan2(dy, dx))
