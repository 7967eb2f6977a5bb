"""The default landmarks on the drawn heads of the mini corpus: one, two beside each other, none, small, masked, away for a while."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("espeakng_loader", reason="needs the extra that builds the mini corpus")
sys.path.insert(0, str(Path(__file__).parents[3] / "egs2/mini_av/avsr_llm1/local"))

from corpus.look import CENTRE_X, MOUTH_Y, SIZE  # noqa: E402
from corpus.render import Face  # noqa: E402

from espnet2_avsr_llm.data.roi import NoFaceError, landmarks, models, mouth_roi  # noqa: E402

NO_MODELS = not (models.model_dir() / models.MESH).is_file()
pytestmark = pytest.mark.skipif(NO_MODELS, reason="the face models are not fetched: python -m espnet2_avsr_llm.bin.roi_models")
MOUTH = np.array([CENTRE_X, MOUTH_Y])  # of every drawn head, but for its sway


def head(seed):
    """Ten pictures (224, 224, 3) of a drawn head, and one without it."""
    face = Face(np.random.default_rng(seed))
    return list(face.frames(np.zeros((10, 7)), np.random.default_rng(seed))), cv2.cvtColor(face.background, cv2.COLOR_RGBA2RGB)


FIRST, SECOND = head(0), head(3)


def centres(found):
    """Where the crops' centres are in the pictures, (T, 2)."""
    return np.linalg.solve(found.transforms[:, :, :2], (48 - found.transforms[:, :, 2])[:, :, None])[:, :, 0]


def shrunk(picture, size, canvas):
    """A picture made smaller, in the middle of a grey square."""
    square, first = np.full((canvas, canvas, 3), 90, np.uint8), (canvas - size) // 2
    square[first : first + size, first : first + size] = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    return square


@pytest.mark.parametrize("frames", [FIRST[0], SECOND[0]])
def test_one_face(frames):
    found = mouth_roi(frames)
    assert found.has_face.all() and found.faces == 1 and np.abs(centres(found) - MOUTH).max() < 12


@pytest.mark.parametrize("size", [112, 150])
@pytest.mark.parametrize("side", ["left", "right"])
def test_of_two_faces_the_larger_is_followed_and_both_are_counted(size, side):
    small, large = (shrunk(picture, size, SIZE) for picture in FIRST[0]), SECOND[0]
    found = mouth_roi([np.hstack((a, b) if side == "right" else (b, a)) for a, b in zip(small, large)])
    assert found.has_face.all() and found.faces == 2
    assert np.abs(centres(found) - MOUTH - (SIZE * (side == "right"), 0)).max() < 12


NO_FACE = {"wall": FIRST[1], "other wall": SECOND[1], "tiny": shrunk(FIRST[0][0], 30, 448), "black": np.zeros((100, 200, 3), np.uint8)}


@pytest.mark.parametrize("picture", NO_FACE.values(), ids=NO_FACE.keys())
def test_no_face(picture):
    with pytest.raises(NoFaceError, match="found no face in any of 5 frames"):
        mouth_roi([picture] * 5)


def test_a_masked_face_is_cropped_where_its_mouth_is_hidden():
    masked = [frame.copy() for frame in FIRST[0]]
    for frame in masked:
        frame[130:200, 60:165] = (150, 170, 200)
    found = mouth_roi(masked)
    assert found.has_face.all() and np.abs(centres(found) - MOUTH).max() < 24


def test_a_face_that_is_away_for_a_while():
    frames = FIRST[0][:4] + [FIRST[1]] * 3 + FIRST[0][7:]
    found = mouth_roi(frames, stride=1)
    assert np.flatnonzero(~found.has_face).tolist() == [4, 5, 6] and np.abs(centres(found) - MOUTH).max() < 12  # interpolated
    long = mouth_roi(FIRST[0] + [FIRST[1]] * 30 + FIRST[0], stride=1)
    assert np.flatnonzero(~long.has_face).tolist() == list(range(10, 40)) == np.flatnonzero(long.frames.max((1, 2)) == 0).tolist()


def test_a_followed_face_is_taken_up_again_beside_a_larger_one():
    small = shrunk(FIRST[0][0], 112, SIZE)
    track = landmarks.get_backend("litert").track()
    first = track(np.hstack([small, SECOND[1]]))
    assert first is not None and track(np.zeros((SIZE, 2 * SIZE, 3), np.uint8)) is None
    assert np.abs(track(np.hstack([small, SECOND[0][0]])) - first).max() < 5
