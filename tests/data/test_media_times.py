"""When each picture and each sample of a file is: frame rates, parts, orders of decoding, pauses."""

from fractions import Fraction

import av
import numpy as np
import pytest

from espnet2_avsr_llm.data.media import MediaError, read_audio, read_video, video_frames
from media_files import indices, make_file, make_sound, tone


@pytest.mark.parametrize("rate", ["24000/1001", "30000/1001", "50", "60", "15"])
def test_other_rates_give_the_nearest_frames(tmp_path, rate):
    rate = Fraction(rate)
    found = indices(read_video(make_file(tmp_path / "a.mp4", rate=rate, n=50)))
    assert len(found) == round(50 / rate * 25)
    distance = np.abs(found / float(rate) - np.arange(len(found)) / 25)
    assert distance.max() <= 0.5 / float(rate) + 1e-3


def test_variable_rate_is_taken_by_time(tmp_path):
    times = [0, 0.04, 0.08, 0.20, 0.24]  # two frames are missing
    found = indices(read_video(make_file(tmp_path / "a.mkv", n=5, times=times)))
    assert list(found[:7]) in ([0, 1, 2, 2, 3, 3, 4], [0, 1, 2, 2, 2, 3, 4])


@pytest.mark.parametrize("change", ["none", "twice", "left out", "both"])
def test_variable_rates_whose_mean_is_25_fps_are_told(tmp_path, change):
    times = np.arange(50) / 25
    times[20:] += 0.04 * (change in ("twice", "both"))  # frame 19 lasts as long as two
    for first, shift in ((30, 0.03), (40, 0.01)):
        times[first:] -= shift * (change in ("left out", "both"))
    said = []
    list(video_frames(make_file(tmp_path / "a.mp4", n=50, times=times.tolist()), say=said.append))
    assert len(said) == (change != "none") and all("resampled to 25" in sentence for sentence in said)
    assert change != "both" or said == ["video of a variable frame rate resampled to 25"]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])  # seeking, and formats in which it is not exact
@pytest.mark.parametrize("start, end", [(0.0, 0.4), (1.0, 2.2), (4.6, 5.32), (5.5, None)])
def test_parts_equal_the_same_part_of_the_whole(tmp_path, name, start, end):
    wave = np.cumsum(np.random.default_rng(0).normal(0, 0.02, 96000)).astype(np.float32)[None] % 0.9
    path = make_file(tmp_path / name, n=150, codec="mpeg4" if name == "a.avi" else "libx264", wave=wave)
    first, last = int(start * 25 + 0.01), None if end is None else int(end * 25 + 0.01)
    assert (read_video(path, start, end) == read_video(path)[first:last]).all()
    whole = read_audio(path)[640 * first : None if last is None else 640 * last]
    part = read_audio(path, start, end)
    assert len(part) == len(whole) and np.abs(part - whole).max() < 1e-3


OPEN_GOP = "open-gop=1:bframes=3:b-adapt=0:keyint=10:min-keyint=10:scenecut=0"
REORDERED = {
    "h264": ("libx264", {"x264-params": OPEN_GOP}),
    "hevc": ("libx265", {"x265-params": f"{OPEN_GOP}:log-level=none"}),
    "mpeg2": ("mpeg2video", {"bf": "2"}),
    "closed": ("libx264", {"x264-params": OPEN_GOP.replace("open-gop=1", "open-gop=0")}),
}


@pytest.mark.parametrize("codec", REORDERED)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_parts_that_begin_before_a_keyframe_but_after_it_in_the_file(tmp_path, name, codec):
    path = make_file(tmp_path / name, n=50, codec=REORDERED[codec][0], encoder=REORDERED[codec][1])
    assert (indices(read_video(path)) == range(50)).all()
    for first in range(1, 46):
        assert list(indices(read_video(path, first / 25, (first + 3) / 25))) == [first, first + 1, first + 2]


@pytest.mark.parametrize("codec, encoder", [REORDERED["h264"], REORDERED["mpeg2"], ("mpeg4", {"bf": "2"}), ("libx264", {"bf": "0"})])
@pytest.mark.parametrize("name", ["a.avi", "a.asf"])
def test_formats_that_store_times_of_decoding(tmp_path, name, codec, encoder):
    path, said = make_file(tmp_path / name, n=50, codec=codec, encoder=encoder), []
    assert list(indices(np.stack(list(video_frames(path, say=said.append))))) == list(range(50)) and said == []


def test_frames_that_avi_leaves_out(tmp_path):
    times = [0.04 * (t if t < 20 else t + 2) for t in range(50)]
    found = indices(read_video(make_file(tmp_path / "a.avi", n=50, times=times, ticks=25, encoder={"bf": "0"})))
    assert list(found[:20]) == list(range(20)) and list(found[22:52]) == list(range(20, 50))


def test_times_that_go_back_are_refused(tmp_path):
    """Frames in another order than their times, as of a program that took times of decoding for times of showing."""
    with av.open(str(make_file(tmp_path / "a.mp4", codec="libx264", encoder=REORDERED["h264"][1]))) as source:
        with av.open(str(tmp_path / "a.mkv"), "w") as out:
            stream = out.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.pts, packet.stream = packet.dts, stream
                    out.mux(packet)
    with pytest.raises(MediaError, match="a frame of 0.[0-9]+ s after that of 0.[0-9]+ s; expected times that rise"):
        read_video(tmp_path / "a.mkv")


def test_pauses_in_the_timestamps_are_silence(tmp_path):
    make_sound(tmp_path / "a.mkv", [(0.0, tone(16000, 1.0)), (3.0, tone(16000, 2.0))])
    wave = read_audio(tmp_path / "a.mkv")
    quiet = np.flatnonzero(np.abs(wave) < 1e-4)
    silence = slice(17000, 47000)
    assert np.abs(wave[silence]).max() == 0 and np.abs(wave[49000:52000]).max() > 0.4 and len(quiet) < 40000
    assert (read_audio(tmp_path / "a.mkv", 3.0, 4.0) == wave[48000:64000]).all()


@pytest.mark.parametrize("gap", [0.01, -0.01])
def test_small_gaps_in_the_timestamps_add_up(tmp_path, gap):
    """Clicks stay where the timestamps say, to a frame."""
    click, piece, said = np.zeros(4608, np.float32), 0.288, []
    click[2000:2080] = 0.9
    make_sound(tmp_path / "a.mkv", [(number * (piece + gap), click) for number in range(30)])
    wave = read_audio(tmp_path / "a.mkv", say=said.append)
    found = np.flatnonzero(np.abs(wave) > 0.5) / 16000
    for number in range(30):
        assert np.abs(found - (number * (piece + gap) + 2040 / 16000)).min() <= 1 / 25
    assert said == ["sound put where its timestamps say"]


def test_sound_that_begins_again_is_refused(tmp_path):
    once = make_file(tmp_path / "a.ts", codec="mpeg2video", wave=tone(16000, 2.0)[None]).read_bytes()
    (tmp_path / "twice.ts").write_bytes(once * 2)
    assert 31000 < len(read_audio(tmp_path / "a.ts")) < 34000
    with pytest.raises(MediaError, match="a frame of .* s after that of .* s; expected times that rise"):
        read_audio(tmp_path / "twice.ts")


def test_what_waits_before_a_damage_is_used(tmp_path):
    path, said = make_file(tmp_path / "a.avi", n=50, codec="mpeg4"), []
    with av.open(str(path)) as container:
        hit = [packet for packet in container.demux(video=0) if packet.size][30]
        position, size = hit.pos + 8, hit.size  # behind the chunk's header
    content = bytearray(path.read_bytes())
    content[position : position + size] = bytes(size)
    path.write_bytes(content)
    with pytest.raises(MediaError):
        read_video(path)
    assert list(indices(np.stack(list(video_frames(path, partial=True, say=said.append))))) == list(range(30))
    assert "video is used as far as it goes" in said
