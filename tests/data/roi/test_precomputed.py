"""Published landmark files: what is read, which video they belong to, and that nothing in them is executed."""

import os
import pickle
import struct

import numpy as np
import pytest

from espnet2_avsr_llm.data.media import MediaError
from espnet2_avsr_llm.data.roi import precomputed
from espnet2_avsr_llm.data.roi.landmarks import get_backend
from espnet2_avsr_llm.data.roi.precomputed import read_landmarks
from media_files import make_file

RNG = np.random.default_rng(0)
FACES = [RNG.uniform(0, 200, (68, 2)), None, RNG.integers(0, 200, (68, 2)), np.asfortranarray(RNG.uniform(0, 9, (68, 2))).astype(">f4")]


def save(path, content, protocol=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("module", ["numpy._core", "numpy.core"])  # numpy 2 and numpy 1, which wrote the published files
def test_arrays_and_missing_faces(tmp_path, protocol, module):
    content = pickle.dumps(FACES, protocol)
    if protocol < 4:  # names without a length before them
        content = content.replace(b"numpy._core", module.encode())
    found = read_landmarks(save(tmp_path / "a.pkl", content))
    assert found[1] is None and len(found) == 4
    for points, expected in zip(found, FACES):
        if expected is not None:
            assert points.dtype == np.float32 and np.array_equal(points, expected.astype(np.float32))


class Canary:
    """Leaves a file behind where its pickle is executed."""

    def __init__(self, path, call):
        self.path, self.call = str(path), call

    def __reduce__(self):
        return self.call, (self.path,)


@pytest.mark.parametrize("call", [os.mkdir, os.system, eval, np.load, np.memmap], ids=lambda f: f.__name__)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_what_a_file_asks_for_is_refused_and_not_run(tmp_path, call, protocol):
    argument = {os.system: f"mkdir {tmp_path}/ran", eval: f"__import__('os').mkdir({str(tmp_path / 'ran')!r})"}.get(call, tmp_path / "ran")
    path = save(tmp_path / "a.pkl", [FACES[0], Canary(argument, call)], protocol)
    with pytest.raises(MediaError, match="a.pkl.*refused, nothing was run"):
        read_landmarks(path)
    assert not (tmp_path / "ran").exists()


def test_the_functions_it_may_call_cannot_be_altered(tmp_path):
    altered = b"cnumpy\nndarray\n(S'_build'\ncnumpy\ndtype\ndb."  # BUILD with a state
    with pytest.raises(MediaError, match="alter a function: refused"):
        read_landmarks(save(tmp_path / "a.pkl", altered))


NOT_LANDMARKS = {
    "objects": [np.array([[None, 1]] * 68)],
    "words": [np.array([["a", "b"]] * 68)],
    "one array": FACES[0],
    "four points": [None, np.zeros((4, 2))],
    "no list": 7,
    "nan": [np.full((68, 2), np.nan)],
    "infinite": [np.where(np.eye(68, 2) > 0, np.inf, FACES[0])],
    "one point": [FACES[0], np.ones((68, 2))],
    "text": b"no pickle\n",
    "empty": b"",
    "half": pickle.dumps(FACES)[:700],
    "longer than the file": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 50) + b"x.",
    "longer than its bytes": pickle.dumps(FACES[:1]).replace(b"K\x44K\x02", b"K\x45K\x02"),
}


@pytest.mark.parametrize("content", NOT_LANDMARKS.values(), ids=NOT_LANDMARKS.keys())
def test_other_files_are_refused(tmp_path, content):
    with pytest.raises(MediaError, match="a.pkl: found .*; expected a pickled list"):
        read_landmarks(save(tmp_path / "a.pkl", content))


def test_the_file_of_a_video_is_found_by_the_end_of_its_path(tmp_path, monkeypatch):
    """An archive of one part, of several parts, and of VoxCeleb2; the most specific file wins."""
    monkeypatch.setattr(precomputed, "duration", lambda path, kind: 0.04)
    archive = tmp_path / "archive"
    for number, name in enumerate(["x/00001", "main/x/00001", "dev/mp4/id1/v/00001"]):
        save(archive / f"{name}.pkl", [FACES[0] + number])
    backend = get_backend(f"precomputed:{archive}")
    shift = lambda path: round(float((backend.track(path, 0)(None) - FACES[0]).mean()))  # noqa: E731
    assert shift("/data/lrs2/main/x/00001.mp4") == 1 and shift("/data/lrs2/pretrain/x/00001.mp4") == 0 and shift("/v2/dev/mp4/id1/v/00001.mp4") == 2
    with pytest.raises(MediaError, match="/v2/none.mp4: found no landmarks in .*archive; expected a file such as .*none.pkl"):
        backend.track("/v2/none.mp4", 0)


def test_a_part_of_a_video_has_its_own_landmarks(tmp_path, monkeypatch):
    monkeypatch.setattr(precomputed, "duration", lambda path, kind: 0.16)
    save(tmp_path / "a.pkl", FACES)
    track = get_backend(f"precomputed:{tmp_path}").track("/v/a.mp4", 2)
    assert np.array_equal(track(None), FACES[2]) and np.array_equal(track(None), FACES[3].astype(np.float32))
    assert track(None) is None and track(None) is None  # fewer landmarks than frames


@pytest.mark.parametrize("rate, landmarks, fits", [(25, 50, 1), (25, 48, 1), (25, 52, 1), (25, 47, 0), (50, 100, 0), (24, 96, 0), (50, 50, 1)])
def test_landmarks_are_of_frames_at_25_fps(tmp_path, rate, landmarks, fits):
    """A video of 2 s (4 s at 24 fps)."""
    path = make_file(tmp_path / "a.mp4", rate=rate, n=96 if rate == 24 else 2 * rate)
    save(tmp_path / "a.pkl", FACES[:1] * landmarks)
    backend = get_backend(f"precomputed:{tmp_path}")
    if fits:
        assert backend.track(str(path), landmarks - 1)(None) is not None
    else:
        with pytest.raises(MediaError, match=f"a.mp4: found {landmarks} landmarks in .*a.pkl; expected one for each of its (50|100) frames at 25 fps"):
            backend.track(str(path), 0)


@pytest.mark.parametrize("name", ["precomputed", "precomputed:", "precomputed:/no/such"])
def test_a_missing_folder_is_named(name):
    with pytest.raises(ValueError, match="names no folder; expected precomputed:FOLDER"):
        get_backend(name)
