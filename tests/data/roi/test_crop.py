"""The two crop recipes on made-up landmarks: gaps, smoothing, geometry."""

import cv2
import numpy as np
import pytest

from espnet2_avsr_llm.data.roi import NoFaceError, crop, landmarks, mouth_crops, mouth_roi
from espnet2_avsr_llm.data.roi.precomputed import PrecomputedTrack

RNG = np.random.default_rng(0)
RECIPES = sorted(crop.CROPS)


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


def stacked(values):
    return np.stack(list(values))


def test_gaps_are_interpolated_and_the_ends_copied():
    found = [None if t not in (1, 4) else np.full((68, 2), 10.0 * t) for t in range(7)]
    assert stacked(crop.fill_gaps(found))[:, 5, 1].tolist() == [10, 10, 20, 30, 40, 40, 40]


@pytest.mark.parametrize("length, filled", [(25, True), (26, False), (60, False)])
@pytest.mark.parametrize("where", ["head", "middle", "tail"])
def test_gaps_of_more_than_a_second_stay_empty(length, filled, where):
    gap, points = [None] * length, np.ones((68, 2))
    found = {"head": [*gap, points], "middle": [points, *gap, points], "tail": [points, *gap]}[where]
    result = stacked(crop.fill_gaps(found))
    empty = np.isnan(result[:, 0, 0])
    assert len(result) == len(found) and (result[~empty] == 1).all()
    assert empty.tolist() == [p is None and not filled for p in found]


def test_nothing_found_gives_as_many_empty_frames():
    for n in (0, 1, 25, 26, 70):
        assert [np.isnan(p).all() for p in crop.fill_gaps([None] * n)] == [True] * n


def test_smoothing_averages_shapes_and_keeps_positions():
    points = RNG.normal(100, 10, (20, 68, 2))
    found = stacked(crop.smooth(points))
    for t, margin in ((0, 0), (3, 3), (9, 6), (17, 2), (19, 0)):
        centred = [points[i] - points[i].mean(0) for i in range(t - margin, t + margin + 1)]
        assert np.allclose(found[t], np.mean(centred, 0) + points[t].mean(0))


@pytest.mark.parametrize("n", range(1, 16))
def test_one_result_per_frame_for_clips_of_any_length(n):
    for recipe in crop.CROPS.values():
        assert stacked(recipe(RNG.normal(face(n), 2))).shape == (n, 2, 3)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("scale, angle, shift", [(1, 0, (0, 0)), (2.0, 0.3, (50, 20)), (0.4, -0.5, (-10, 90))])
def test_crop_undoes_scale_rotation_and_shift(recipe, scale, angle, shift):
    """A face anywhere in the picture comes to the same pixels, the mouth in the middle."""
    points = face(3)
    transforms = stacked(crop.CROPS[recipe](placed(points, scale, angle, np.array(shift))))
    mouth = placed(points[0, 48:68].mean(0), scale, angle, np.array(shift))
    assert np.hypot(*transforms[0][:, 0]) == pytest.approx(1 / scale, rel=1e-3)
    assert np.abs(transforms[0] @ [*mouth, 1] - 48).max() < 0.6  # the corner is rounded to a pixel
    in_canvas = points[0, 30] - np.rint(points[0, 48:68].mean(0) - 48)
    assert np.abs(transforms[0] @ [*placed(points[0, 30], scale, angle, np.array(shift)), 1] - in_canvas).max() < 0.1


@pytest.mark.parametrize("recipe", RECIPES)
def test_patch_stays_in_the_canvas(recipe):
    points = face()
    points[:, 55:68] += 1000
    corner = -(stacked(crop.CROPS[recipe](points))[0][:, 2])
    assert np.abs(corner - (256 - 96)).max() < 0.1


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("place", [0, 100.3])
@pytest.mark.parametrize("n", [3, 20])
def test_stable_points_in_one_place_are_no_face(recipe, place, n):
    points = np.full((68, 2), float(place))
    points[0] = (5, 7)  # so that not all 68 coincide
    with pytest.raises(crop.LandmarkError, match="stable face landmarks of a frame in one point"):
        stacked(crop.CROPS[recipe]([points] * n))


def umeyama(source, target):
    """Similarity of least squares by singular values (Umeyama 1991), as scikit-image fits it."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, d, v = np.linalg.svd(b.T @ a)
    sign = np.diag([1, np.sign(np.linalg.det(u @ v))])
    turn = u @ sign @ v * (d @ np.diag(sign)) / (a**2).sum()
    return np.column_stack([turn, target.mean(0) - turn @ source.mean(0)])


def test_avhubert_looks_eleven_frames_ahead_and_keeps_the_last_transform():
    points = RNG.normal(face(20), 3)
    ids, target = [33, 36, 39, 42, 45], np.array([crop._MEAN_FACE[i] for i in [33, 36, 39, 42, 45]])
    found = stacked(crop.avhubert(points))
    for t in range(20):
        first = min(t, 20 - 12)
        expected = umeyama(points[first : first + 12].mean(0)[ids], target)
        assert np.allclose(found[t][:, :2], expected[:, :2])
        mouth = expected @ np.append(points[t, 48:68].mean(0), 1)  # of the current frame
        assert np.allclose(expected[:, 2] - found[t][:, 2], np.rint(mouth - 48))


def moving_face(n, missing=()):
    """Landmarks of a face that trembles, drifts, turns and grows; None in some frames."""
    rng = np.random.default_rng(7)
    places = [placed(face()[0] + rng.normal(0, 1, (68, 2)), 0.8 + 0.01 * t, 0.01 * t - 0.1, np.array([20 + t, 30 - 0.5 * t])) for t in range(n)]
    return [None if t in missing else points for t, points in enumerate(places)]


def released(landmarks, window, ids, fit, of_mean):
    """Similarity and corner of the patch in each frame, as the specification tells the two programs' steps (2.5 and 2.6).

    ``window(t, n)``: first and last frame of the mean; ``of_mean``: the mouth of the smoothed face counts, not the frame's own.
    """
    points, n = np.array([p if p is not None else np.full((68, 2), np.nan) for p in landmarks]), len(landmarks)
    seen = np.flatnonzero(~np.isnan(points[:, 0, 0]))
    points = np.stack([[np.interp(range(n), seen, points[seen, i, k]) for k in (0, 1)] for i in range(68)], 1).transpose(2, 1, 0)
    for t in range(n):
        first, last = window(t, n)
        mean = points[first : last + 1].mean(0)
        if of_mean:
            mean += points[t].mean(0) - mean.mean(0)
        matrix = fit(mean[ids], np.array([crop._MEAN_FACE[i] for i in ids]))
        centre = matrix @ np.append((mean if of_mean else points[t])[48:68].mean(0), 1)
        yield matrix, np.rint(np.clip(centre, 48, 256 - 48) - 48).astype(int)


def lmeds(source, target):
    return cv2.estimateAffinePartial2D(source.astype(np.float32), target.astype(np.float32), method=cv2.LMEDS)[0]


def centred(t, n):
    return t - min(6, t, n - 1 - t), t + min(6, t, n - 1 - t)


def ahead(t, n):
    return max(0, min(t, n - 12)), min(max(0, min(t, n - 12)) + 11, n - 1)


AS_RELEASED = {
    "auto_avsr": (centred, [28, 33, 36, 39, 42, 45, 48, 54], lmeds, True),
    "avhubert": (ahead, [33, 36, 39, 42, 45], umeyama, False),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("n", [3, 12, 40])
def test_crops_are_those_of_the_released_programs(recipe, n):
    landmarks = moving_face(n, {0, 5, 6, 7, n - 1})
    frame = cv2.GaussianBlur(RNG.integers(0, 256, (260, 280, 3), dtype=np.uint8), (7, 7), 0)
    found = list(mouth_crops([frame] * n, PrecomputedTrack(landmarks), recipe))
    for one, (matrix, corner) in zip(found, released(landmarks, *AS_RELEASED[recipe]), strict=True):
        assert np.abs(one.transform - matrix + np.column_stack([np.zeros((2, 2)), corner])).max() < 1e-3
        canvas = cv2.cvtColor(cv2.warpAffine(frame, matrix, (256, 256)), cv2.COLOR_RGB2GRAY)
        patch = canvas[corner[1] : corner[1] + 96, corner[0] : corner[0] + 96]
        assert np.abs(one.patch.astype(int) - patch).mean() < 0.1


def test_transforms_do_not_depend_on_the_random_state():
    points = face(4) * 1.3 + RNG.normal(0, 3, (4, 68, 2))
    found = []
    for seed in (1, 99):
        cv2.setRNGSeed(seed)
        found.append(stacked(crop.auto_avsr(points)))
    assert (found[0] == found[1]).all()


def test_one_warp_equals_canvas_then_cut():
    frame = cv2.GaussianBlur(RNG.integers(0, 256, (200, 220, 3), dtype=np.uint8), (5, 5), 0)
    points = placed(face(), 0.7, 0.2, np.array([30, 20]))
    (matrix,) = crop.auto_avsr(points)
    similarity, _ = cv2.estimateAffinePartial2D(points[0, crop._AUTO_AVSR].astype(np.float32), crop._AUTO_AVSR_TARGET, method=cv2.LMEDS)
    left, top = np.rint(similarity[:, 2] - matrix[:, 2]).astype(int)
    canvas = cv2.cvtColor(cv2.warpAffine(frame, similarity, (256, 256)), cv2.COLOR_RGB2GRAY)
    difference = crop.warp(frame, matrix).astype(int) - canvas[top : top + 96, left : left + 96]
    assert np.abs(difference).max() <= 2 and np.abs(difference).mean() < 0.1


class FakeTrack:
    """Finds `face()` where the frame is not black."""

    faces = 1
    free = False

    def __call__(self, frame):
        return placed(face()[0], 1, 0, np.array([10, 20])) if frame.any() else None


class FakeBackend:
    def track(self, path, first):
        return FakeTrack()


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setitem(landmarks.BACKENDS, "fake", lambda argument: FakeBackend())
    landmarks.get_backend.cache_clear()
    return "fake"


@pytest.mark.parametrize("recipe", RECIPES)
def test_crops_for_every_frame_and_which_had_a_face(fake, recipe):
    frames = np.full((80, 240, 260, 3), 90, np.uint8)
    frames[[0, 4, 5]] = 0
    found = mouth_roi(frames, fake, recipe, 1)
    assert found.frames.shape == (80, 96, 96) and found.frames.dtype == np.uint8 and found.transforms.shape == (80, 2, 3)
    assert np.flatnonzero(~found.has_face).tolist() == [0, 4, 5]
    assert found.frames[1].min() == 90 and found.frames[4].max() == 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_long_gaps_are_black(fake, recipe):
    frames = np.full((80, 240, 260, 3), 90, np.uint8)
    frames[30:60, :100] = 0  # picture there, but no face
    frames[30:60, 100:] = 0
    frames[31, 0, 0] = 0
    found = mouth_roi(frames, fake, recipe, 1)
    black = found.frames.max((1, 2)) == 0
    assert np.flatnonzero(black).tolist() == list(range(30, 60)) == np.flatnonzero(np.isnan(found.transforms[:, 0, 0])).tolist()


def test_the_stretches_beside_a_long_gap_are_smoothed_apart():
    points = RNG.normal(face(40), 3)
    gap = [None] * 30
    found = stacked(crop.auto_avsr(crop.fill_gaps([*points[:20], *gap, *points[20:]])))
    expected = [*crop.auto_avsr(points[:20]), *[np.full((2, 3), np.nan)] * 30, *crop.auto_avsr(points[20:])]
    assert np.array_equal(found, np.stack(expected), equal_nan=True)


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


def test_long_clips_take_little_memory():
    """At most 100 frames are alive at once, however long the clip."""
    alive = most = 0

    class Frame(np.ndarray):
        def __array_finalize__(self, source):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self):
            nonlocal alive
            alive -= 1

    frames = (np.full((8, 8, 3), t % 7 > 0, np.uint8).view(Frame) for t in range(1000))
    assert sum(1 for _ in mouth_crops(frames, FakeTrack())) == 1000
    assert most < 2 * 100  # an array and a view of it each


def test_unknown_backend_is_named():
    with pytest.raises(ValueError, match="'nothing': choose from litert"):
        landmarks.get_backend("nothing")
