"""The mediapipe backend over a mesh that gives the faces it is told."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from espnet2_avsr_llm.data.roi.landmarks import MESH_TO_68, get_backend

RNG = np.random.default_rng(0)
FRAME = np.zeros((200, 100, 3), np.uint8)
MESH = RNG.uniform(0, 1, (468, 2))  # in parts of the picture


def face(x, y, size):
    points = (x, y) + size * (MESH - 0.5)
    return SimpleNamespace(landmark=[SimpleNamespace(x=px, y=py, z=0.0) for px, py in points])


@pytest.fixture
def seen(monkeypatch):
    """The faces of the next frames, one list after the other; a fresh backend reads them."""
    frames = []

    class FaceMesh:
        open = 0

        def __init__(self, max_num_faces):
            assert max_num_faces > 1
            FaceMesh.open += 1

        def close(self):
            FaceMesh.open -= 1

        def process(self, frame):
            return SimpleNamespace(multi_face_landmarks=frames.pop(0) or None)

    name = "mediapipe.python.solutions.face_mesh"
    for part in ("mediapipe", "mediapipe.python", "mediapipe.python.solutions", name):
        monkeypatch.setitem(sys.modules, part, ModuleType(part))
    monkeypatch.setattr(sys.modules[name], "FaceMesh", FaceMesh, raising=False)
    get_backend.cache_clear()
    yield frames
    get_backend.cache_clear()


def test_landmarks_are_in_pixels_and_in_the_order_of_the_68(seen):
    seen.append([face(0.5, 0.5, 1.0)])
    points = get_backend("mediapipe").track("", 0)(FRAME)
    assert points.dtype == np.float32 and np.allclose(points, MESH[MESH_TO_68] * (100, 200))


def test_the_largest_face_is_followed_where_it_goes(seen):
    small, large = face(0.2, 0.5, 0.1), face(0.7, 0.5, 0.3)
    seen += [[small, large], [face(0.2, 0.5, 0.9), face(0.65, 0.5, 0.2)], [], [small, face(0.6, 0.5, 0.2)]]
    track = get_backend("mediapipe").track("", 0)
    found = [track(FRAME) for _ in range(4)]
    off_centre = MESH[MESH_TO_68].mean(0)[0] - 0.5
    places = [None if p is None else p[:, 0].mean() / 100 - size * off_centre for p, size in zip(found, (0.3, 0.2, 0, 0.2))]
    assert places == [pytest.approx(0.7), pytest.approx(0.65), None, pytest.approx(0.6)]
    assert track.faces == 2


def test_the_mesh_of_a_clip_is_closed_with_it(seen):
    face_mesh = sys.modules["mediapipe.python.solutions.face_mesh"].FaceMesh
    for _ in range(3):
        track = get_backend("mediapipe").track("", 0)
    assert face_mesh.open == 1
    del track
    assert face_mesh.open == 0


def test_without_the_package_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    get_backend.cache_clear()
    with pytest.raises(ImportError, match="mediapipe==0.10.21 .*an environment of its own .*--landmarks litert"):
        get_backend("mediapipe")
