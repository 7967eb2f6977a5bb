"""The face mesh as the mediapipe package itself runs it (``mediapipe==0.10.21``; later versions carry no models).

Shapes: H height, W width; points are (x, y) in pixels.
"""

import weakref

import numpy as np

from espnet2_avsr_llm.data.roi.landmarks import MESH_TO_68

_MOST_FACES = 4


class MediapipeFaceMesh:
    """Backend ``mediapipe``.

    Raises:
        ImportError: the package is missing, or without its models.
    """

    def __init__(self) -> None:
        try:
            from mediapipe.python.solutions.face_mesh import FaceMesh
        except ImportError as error:
            advice = "install it in an environment of its own (it needs numpy < 2), or use --landmarks litert"
            raise ImportError(f"--landmarks mediapipe needs mediapipe==0.10.21 ({error}): {advice}") from error
        self._face_mesh = FaceMesh

    def track(self, path: str = "", first: int = 0) -> "MediapipeTrack":
        """See ``LandmarkBackend``."""
        mesh = self._face_mesh(max_num_faces=_MOST_FACES)
        track = MediapipeTrack(mesh)
        weakref.finalize(track, mesh.close)  # its graph would outlive it otherwise
        return track


class MediapipeTrack:
    """Follows one of the faces that mediapipe tracks: at first the largest, then the one nearest to where it was."""

    free = False

    def __init__(self, mesh) -> None:
        self.faces = 0
        self._mesh = mesh
        self._centre: np.ndarray | None = None

    def __call__(self, frame: np.ndarray) -> np.ndarray | None:
        """See ``Track``."""
        size = (frame.shape[1], frame.shape[0])
        found = self._mesh.process(frame).multi_face_landmarks or []
        faces = [np.array([(p.x, p.y) for p in face.landmark], np.float32)[MESH_TO_68] * size for face in found]
        self.faces = max(self.faces, len(faces))
        if not faces:
            return None
        if self._centre is None:
            face = max(faces, key=lambda points: np.ptp(points, axis=0).sum())
        else:
            face = min(faces, key=lambda points: np.abs(points.mean(0) - self._centre).sum())
        self._centre = face.mean(0)
        return face.astype(np.float32)
