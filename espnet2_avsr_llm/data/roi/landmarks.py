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


class LandmarkBackend(Protocol):
    """What finds the landmarks; registered in ``BACKENDS``."""

    def landmarks(self, frames: np.ndarray) -> np.ndarray:
        """Find one face per frame of one clip.

        Args:
            frames: (T, H, W, 3) uint8 RGB.

        Returns:
            (T, 68, 2) float32; NaN where a frame has no face.
        """


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

    def landmarks(self, frames: np.ndarray) -> np.ndarray:
        """See ``LandmarkBackend``. Of several faces, the largest is taken, then followed."""
        found = np.full((len(frames), 68, 2), np.nan, np.float32)
        region = None
        for t, frame in enumerate(frames):
            mesh = self.mesh(frame, region) if region else None
            if mesh is None:
                region = self.largest_face(frame)
                mesh = self.mesh(frame, region) if region else None
            region = None if mesh is None else _region_of_mesh(mesh)
            if mesh is not None:
                found[t] = mesh[MESH_TO_68]
        return found

    def largest_face(self, frame: np.ndarray) -> Region | None:
        """Region of the largest face the detector finds in (H, W, 3), or None."""
        height, width = frame.shape[:2]
        whole = Region(width / 2, height / 2, max(height, width), 0.0).matrix(_DETECTOR_SIZE)
        view = _view(frame, whole, _DETECTOR_SIZE, cv2.BORDER_CONSTANT) * np.float32(2) - 1
        raw, logits = self._detect(view)
        logits = logits.reshape(-1)
        strong = logits >= 0  # score of at least 0.5
        # centre, size, then six key points, the first two the eyes; all but the size relative to the anchor
        boxes = raw.reshape(-1, 16)[strong] / _DETECTOR_SIZE
        boxes[:, :2] += self._anchors[strong]
        boxes[:, 4:] += np.tile(self._anchors[strong], 6)
        faces = _merge_overlapping(boxes, 1 / (1 + np.exp(-logits[strong])))
        if not faces:
            return None
        face = max(faces, key=lambda f: f[2] * f[3]) * _DETECTOR_SIZE
        (x, y), right, left = (whole @ [*p, 1] for p in (face[:2], face[4:6], face[6:8]))
        side = max(face[2:4]) * whole[0, 0] * _MARGIN
        return Region(x, y, side, np.arctan2(*(left - right)[::-1]))

    def mesh(self, frame: np.ndarray, region: Region) -> np.ndarray | None:
        """The 468 mesh points (468, 2) of the face in ``region``, or None when there is none."""
        matrix = region.matrix(_MESH_SIZE)
        raw, logit = self._mesh(_view(frame, matrix, _MESH_SIZE, cv2.BORDER_REPLICATE))
        if logit.item() <= 0:  # probability of a face at most 0.5
            return None
        points = raw.reshape(-1, 3)[:, :2]
        return points @ matrix[:, :2].T + matrix[:, 2]


BACKENDS: dict[str, Callable[[], LandmarkBackend]] = {"litert": LiteRTFaceMesh}


@functools.lru_cache
def get_backend(name: str) -> LandmarkBackend:
    """The backend ``name`` of ``BACKENDS``, made once per process.

    Raises:
        ValueError: no such backend.
    """
    if name not in BACKENDS:
        raise ValueError(f"no landmark backend {name!r}: choose from {', '.join(sorted(BACKENDS))}")
    return BACKENDS[name]()


def _interpreter(name: str) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Load a model; the result maps its (size, size, 3) float32 input to its outputs."""
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(model_content=load_model(name), num_threads=1)
    model.allocate_tensors()
    (source,) = model.get_input_details()
    outputs = [output["index"] for output in model.get_output_details()]

    def run(view: np.ndarray) -> list[np.ndarray]:
        model.set_tensor(source["index"], view[None])
        model.invoke()
        return [model.get_tensor(index) for index in outputs]

    return run


def _view(frame: np.ndarray, matrix: np.ndarray, size: int, border: int) -> np.ndarray:
    """(size, size, 3) float32 in [0, 1]: what ``matrix`` (view to picture) shows of ``frame``."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(frame, matrix, (size, size), flags=flags, borderMode=border) * np.float32(1 / 255)


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


def _region_of_mesh(mesh: np.ndarray) -> Region:
    """Where the mesh of the next frame looks, given the points (468, 2) of this one."""
    low, high = mesh.min(0), mesh.max(0)
    right, left = mesh[list(_MESH_EYES)]
    x, y = (low + high) / 2
    return Region(x, y, (high - low).max() * _MARGIN, np.arctan2(*(left - right)[::-1]))
