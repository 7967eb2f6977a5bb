"""Media files of every kind that `bad_inputs.md` names, made here."""

import os
import pickle
import random
import time
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from espnet2_avsr_llm.data.media import MediaError, NoStreamError, read_audio, read_roi, read_video, video_frames, write_audio, write_roi
from media_files import indices, make_file, make_sound, tone


def test_every_frame_at_25_fps(tmp_path):
    video = read_video(make_file(tmp_path / "a.mp4", n=40))
    assert video.shape == (40, 48, 64, 3) and video.dtype == np.uint8
    assert (indices(video) == np.arange(40)).all()


@pytest.mark.parametrize("name, codec", [("a.mkv", "libx264"), ("a.mov", "libx264"), ("a.avi", "mpeg4"), ("a.mpg", "mpeg1video")])
def test_containers_and_codecs(tmp_path, name, codec):
    wave = tone(16000, 1.2)[None]
    path = make_file(tmp_path / name, n=30, codec=codec, wave=wave)
    assert (indices(read_video(path)) == np.arange(30)).all()
    assert abs(len(read_audio(path)) - 19200) <= 1152 + 1024


def test_rotation_metadata_is_applied(tmp_path):
    path = make_file(tmp_path / "a.mp4")
    content = bytearray(path.read_bytes())
    at = content.find(b"tkhd") + 4 + 40  # the matrix of the track header
    fixed = lambda *values: b"".join(v.to_bytes(4, "big", signed=True) for v in values)  # noqa: E731
    one = 1 << 16
    content[at : at + 36] = fixed(0, one, 0, -one, 0, 0, 0, 0, 1 << 30)  # shown turned by 90 degrees clockwise
    path.write_bytes(content)
    said = []
    video = np.stack(list(video_frames(path, say=said.append)))
    assert video.shape == (25, 64, 48, 3) and said == ["video turned by -90 degrees, as its metadata say"]
    assert video[10, :, :16].mean() > 50 and video[10, :, 32:].mean() < 5  # black top is now the right side


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_rates_and_sample_formats(tmp_path, rate, subtype):
    soundfile.write(tmp_path / "a.wav", tone(rate), rate, subtype=subtype)
    wave = read_audio(tmp_path / "a.wav")
    assert wave.dtype == np.float32 and abs(len(wave) - 16000) <= 1
    inner = slice(1000, 15000)
    assert np.abs(wave[inner] - tone(16000)[inner]).max() < 0.01


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_averaged(tmp_path, channels):
    waves = np.stack([tone(16000, level=0.1 * (c + 1)) for c in range(channels)], 1)
    soundfile.write(tmp_path / "a.flac", waves, 16000, subtype="PCM_24")
    assert np.abs(read_audio(tmp_path / "a.flac") - waves.mean(1)).max() < 1e-5


def test_stereo_in_a_container_is_averaged(tmp_path):
    wave = np.stack([tone(16000, level=0.6), np.zeros(16000, np.float32)])
    found = read_audio(make_file(tmp_path / "a.mp4", wave=wave))[2000:14000]
    assert np.sqrt(2 * np.mean(found**2)) == pytest.approx(0.3, rel=0.03)


def test_loud_sound_is_not_clipped(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(48000, level=3.0), 48000, subtype="FLOAT")
    assert np.abs(read_audio(tmp_path / "a.wav")).max() == pytest.approx(3.0, rel=0.01)


@pytest.mark.parametrize("level, said", [(1.8, ["sound scaled down to a peak of 1"]), (1.0, []), (0.3, [])])
def test_loud_sound_is_not_clipped_when_written(tmp_path, level, said):
    wave, notes = tone(16000, level=level), []
    write_audio(tmp_path / "a.flac", wave, notes.append)
    assert np.abs(read_audio(tmp_path / "a.flac") - wave / max(level, 1)).max() < 1e-4 and notes == said


@pytest.mark.parametrize("late", [0.0, 0.4])
def test_sound_is_aligned_with_the_video(tmp_path, late):
    click = np.zeros((1, 16000), np.float32)
    click[0, 8000:8080] = 0.9
    found = read_audio(make_file(tmp_path / "a.mp4", n=50, wave=click, audio_late=late))
    assert abs(int(np.abs(found).argmax()) - (8040 + late * 16000)) < 100


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_unusable_samples_are_refused(tmp_path, value):
    wave = tone(16000)
    wave[100] = value
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    with pytest.raises(MediaError, match="a.wav.*NaN or infinite"):
        read_audio(tmp_path / "a.wav")


def test_sound_without_samples_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 16000)
    with pytest.raises(MediaError, match="no samples"):
        read_audio(tmp_path / "a.wav")


def test_missing_streams_are_named(tmp_path):
    silent = make_file(tmp_path / "silent.mp4")
    with pytest.raises(NoStreamError, match="no audio .streams: video"):
        read_audio(silent)
    sound = make_file(tmp_path / "sound.m4a", n=0, wave=tone(16000)[None])
    assert len(read_audio(sound)) >= 16000
    with pytest.raises(NoStreamError, match="no video .streams: audio"):
        read_video(sound)


PLAYLIST = b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
CONCAT = b"ffconcat version 1.0\nfile good.mp4\n"
NO_MEDIA = {"empty": b"", "text": b"plain text\n" * 50, "playlist": PLAYLIST, "concat": CONCAT, "zeros": b"\0" * 5000}


@pytest.mark.parametrize("content", NO_MEDIA.values(), ids=NO_MEDIA.keys())
@pytest.mark.parametrize("name", ["a.mp4", "a.wav"])
def test_what_is_no_media_is_refused_quickly(tmp_path, content, name):
    make_file(tmp_path / "good.mp4")
    (tmp_path / name).write_bytes(content)
    start = time.monotonic()
    for read in (read_audio, read_video):
        with pytest.raises(MediaError, match=name):
            read(tmp_path / name)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("part", [0.01, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}], ids=["index last", "index first"])
def test_truncated_video_is_refused_quickly(tmp_path, part, options):
    path = make_file(tmp_path / "a.mp4", n=60, **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    start = time.monotonic()
    with pytest.raises(MediaError, match="a.mp4"):
        read_video(path)
    assert time.monotonic() - start < 5


def test_truncated_sound_is_refused(tmp_path):
    path = make_file(tmp_path / "a.mp4", n=0, wave=tone(16000, 4.0)[None], movflags="faststart")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(MediaError, match="truncated"):
        read_audio(path)


def test_damaged_video_is_refused(tmp_path):
    path = make_file(tmp_path / "a.mp4", n=60)
    content = bytearray(path.read_bytes())
    start = content.find(b"mdat") + 1000
    content[start : start + 300] = bytes(byte ^ 0xFF for byte in content[start : start + 300])
    path.write_bytes(content)
    with pytest.raises(MediaError, match="a.mp4"):
        read_video(path)


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    for path in (tmp_path / "a.mp4", tmp_path, tmp_path / "none.mp4"):
        with pytest.raises(MediaError, match="no such file"):
            read_video(path)


@pytest.mark.parametrize("name", ["-a b.mp4", "concat:a|b.mp4", "$(touch x);'\".mp4", "é\n漢.mp4", "http:%d{}.mp4"])
def test_odd_names_work(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.rename(make_file(tmp_path / "a.mp4", n=3), tmp_path / name)
    assert len(read_video(name)) == 3
    assert os.listdir(tmp_path) == [name]


def test_error_survives_a_process_border():
    error = pickle.loads(pickle.dumps(NoStreamError("x.mp4", "this", "that", "do so")))
    assert isinstance(error, NoStreamError) and str(error) == "x.mp4: found this; expected that; do so" and error.path == "x.mp4"


def roi_frames(n=30):
    y, x = np.mgrid[:96, :96]
    return np.stack([(120 + 60 * np.sin((x + 2 * t) / 15) + 40 * np.cos(y / 9)).clip(0, 255) for t in range(n)]).astype(np.uint8)


def test_roi_round_trip_keeps_the_range(tmp_path):
    frames = roi_frames()
    frames[:, :20, :20], frames[:, -20:, -20:] = 0, 255
    write_roi(tmp_path / "a.mp4", frames)
    found = read_roi(tmp_path / "a.mp4")
    assert found.shape == frames.shape and found.dtype == np.uint8
    assert np.abs(found.astype(int) - frames).mean() < 2
    assert found[:, 5:15, 5:15].max() <= 4 and found[:, -15:-5, -15:-5].min() >= 251


def test_roi_files_are_reproducible_and_whole(tmp_path):
    for name in "abc":
        write_roi(tmp_path / name, roi_frames())
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_roi(tmp_path / "a.mp4", roi_frames(3))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("frames", [np.zeros((0, 96, 96), np.uint8), np.zeros((2, 88, 88), np.uint8), np.zeros((2, 96, 96), np.float32)])
def test_only_crops_are_written(tmp_path, frames):
    with pytest.raises(ValueError, match=r"uint8 \(T, 96, 96\)"):
        write_roi(tmp_path / "a.mp4", frames)


def test_only_crops_are_read(tmp_path):
    with pytest.raises(MediaError, match="64x48.*96x96"):
        read_roi(make_file(tmp_path / "a.mp4"))


def test_a_roi_file_takes_a_stream_of_frames(tmp_path):
    assert write_roi(tmp_path / "a.mp4", iter(roi_frames(7))) == 7 and len(read_roi(tmp_path / "a.mp4")) == 7


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_parts_of_sound_files(tmp_path, name):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / name, rng.normal(0, 0.1, (48000, 2)).astype(np.float32), 16000)
    assert (read_audio(tmp_path / name, 1.0, 2.0) == read_audio(tmp_path / name)[16000:32000]).all()
    with pytest.raises(MediaError, match="no samples after 3 s"):
        read_audio(tmp_path / name, 3.0)
    with pytest.raises(MediaError, match="ends at 3.00 s; expected 5.00 s"):
        read_audio(tmp_path / name, 1.0, 5.0)


def test_parts_that_are_not_there_are_errors(tmp_path):
    path = make_file(tmp_path / "a.mp4", n=50, wave=tone(16000, 2.0)[None])
    with pytest.raises(MediaError, match="no video frames after 3 s"):
        read_video(path, 3.0)
    with pytest.raises(MediaError, match="video that ends at 2.00 s; expected 4.00 s"):
        read_video(path, 1.0, 4.0)


@pytest.mark.parametrize("times", [[0, 0.04, 9e5], [0, 0.04, 200, 200.04]])
def test_timestamps_cannot_ask_for_any_number_of_frames(tmp_path, times):
    path = make_file(tmp_path / "a.mkv", n=len(times), times=times)
    start = time.monotonic()
    with pytest.raises(MediaError, match="no video from 0.0. to (900000|200).00 s"):
        read_video(path)
    assert time.monotonic() - start < 5


def test_sound_that_begins_ages_after_the_video_is_refused(tmp_path):
    make_sound(tmp_path / "a.mkv", [(5000.0, tone(16000, 1.0))])
    with pytest.raises(MediaError, match="begins 5000 s late"):
        read_audio(tmp_path / "a.mkv")


def test_huge_pictures_are_refused(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 8000, 4000, "yuv420p"
        out.mux(stream.encode(av.VideoFrame(8000, 4000, "yuv420p")))
        out.mux(stream.encode())
    with pytest.raises(MediaError, match="8000x4000 video.*scale it down"):
        read_video(tmp_path / "a.mp4")


def test_an_unknown_codec_is_refused(tmp_path):
    path = make_file(tmp_path / "a.mp4")
    content = path.read_bytes()
    assert content.count(b"avc1\0\0") == 1
    path.write_bytes(content.replace(b"avc1\0\0", b"xvcx\0\0"))
    with pytest.raises(MediaError, match="video of an unknown codec"):
        read_video(path)


def test_a_frame_cannot_last_for_hours(tmp_path):
    """The last frame's duration in an mp4's time table, set to 71 hours."""
    path = make_file(tmp_path / "a.mp4", n=3, times=[0, 0.04, 0.1])
    content = bytearray(path.read_bytes())
    at = content.find(b"stts")
    entries = int.from_bytes(content[at + 8 : at + 12], "big")
    last = at + 12 + 8 * entries - 4
    content[last : last + 4] = (0x7FFFFF00).to_bytes(4, "big")
    path.write_bytes(content)
    start = time.monotonic()
    with pytest.raises(MediaError, match="a frame of [0-9]+ s at 0.0?"):
        read_video(path)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("rate", [0, 5, 335560320, 0x7FFFFFFF])
def test_impossible_rates_are_refused(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(16000), 16000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[24:28] = rate.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(MediaError, match="a.wav"):
        read_audio(tmp_path / "a.wav")


def test_any_damage_gives_something_or_a_media_error(tmp_path):
    """Bytes changed, lost and added at random, half of the time near the start: nothing else is raised, and nothing takes long."""
    wave, rng = np.stack([tone(16000)] * 2), random.Random(0)
    codecs = {"a.mp4": "libx264", "a.mkv": "libx264", "a.avi": "mpeg4", "a.mpg": "mpeg1video"}
    files = [make_file(tmp_path / name, codec=codec, wave=wave) for name, codec in codecs.items()]
    for name in ("a.wav", "a.flac"):
        soundfile.write(tmp_path / name, wave.T, 16000)
        files.append(tmp_path / name)
    found = []
    for path in files:
        whole = path.read_bytes()
        for _ in range(40):
            content = bytearray(whole)
            for _ in range(rng.choice([1, 10, 100])):
                at = rng.randrange(min(len(content), rng.choice([2000, len(content)])))
                content[at : at + rng.choice([0, 1, 1, 50])] = rng.randbytes(rng.choice([0, 1, 1, 50]))
            path.write_bytes(content)
            for read in (read_audio, read_video) if path.suffix not in (".wav", ".flac") else (read_audio,):
                start = time.process_time()
                try:
                    found.append(len(read(path)))
                except MediaError as error:
                    assert path.name in str(error)
                assert time.process_time() - start < 5
    assert 40 < len(found) < 360


def test_shifted_and_clipped_sound_stays_as_it_is(tmp_path):
    wave = np.clip(3 * tone(16000), -1, 1) * 0.5 + 0.25
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    assert np.array_equal(read_audio(tmp_path / "a.wav"), wave.astype(np.float32))


def test_what_is_converted_is_said(tmp_path):
    path = make_file(tmp_path / "a.mp4", rate=Fraction(50), wave=np.stack([tone(16000)] * 2))
    soundfile.write(tmp_path / "a.wav", tone(8000), 8000)
    said = []
    list(video_frames(path, say=said.append))
    read_audio(path, say=said.append)
    read_audio(tmp_path / "a.wav", say=said.append)
    assert said == [
        "video of 50.000 fps resampled to 25",
        "sound of 16000 Hz, 2 channels converted to 16000 Hz mono",
        "sound of 8000 Hz, 1 channels converted to 16000 Hz mono",
    ]
    silent = []
    list(video_frames(make_file(tmp_path / "b.mp4", wave=tone(16000)[None]), say=silent.append))
    read_audio(tmp_path / "b.mp4", say=silent.append)
    assert silent == []


@pytest.mark.parametrize("part", [0.3, 0.7])
def test_truncated_files_are_read_as_far_as_they_go_if_asked(tmp_path, part):
    path = make_file(tmp_path / "a.mp4", n=100, wave=tone(16000, 4.0)[None], movflags="faststart")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    said = []
    frames = list(video_frames(path, partial=True, say=said.append))
    assert 5 < len(frames) < 95 and (indices(np.stack(frames))[:5] == range(5)).all()
    assert said == ["video is used as far as it goes"]
    assert 1000 < len(read_audio(path, partial=True)) < 60000
    with pytest.raises(MediaError):
        list(video_frames(path))


@pytest.mark.parametrize("name, subtype", [("a.wav", "PCM_16"), ("a.wav", "PCM_24"), ("a.wav", "FLOAT"), ("a.flac", "PCM_16")])
def test_truncated_sound_files_are_refused_or_read_as_far_as_they_go(tmp_path, name, subtype):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 48000).astype(np.float32)
    soundfile.write(tmp_path / name, wave, 16000, subtype=subtype)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    for span in ((), (1.0, 2.0)):
        with pytest.raises(MediaError, match=name):
            read_audio(tmp_path / name, *span)
    said = []
    found = read_audio(tmp_path / name, partial=True, say=said.append)
    assert 16000 < len(found) < 25000 and np.abs(found - wave[: len(found)]).max() < 1e-3 and said == ["audio is used as far as it goes"]
    if name == "a.wav":  # what is wanted is there
        assert len(read_audio(tmp_path / name, 0.2, 1.0)) == 12800


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff", b"\x24\xf0\xff\x7f", b"\0\0\0\0"])
def test_wav_files_that_do_not_know_their_length_are_whole(tmp_path, length):
    """As ffmpeg and sox write them into a pipe."""
    soundfile.write(tmp_path / "a.wav", tone(16000), 16000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[4:8] = length
    if any(length):
        content[40:44] = length
    (tmp_path / "a.wav").write_bytes(content)
    assert len(read_audio(tmp_path / "a.wav")) == 16000


@pytest.mark.parametrize("samples", [1, 1599, 1600])
def test_very_short_sound_is_read(tmp_path, samples):
    soundfile.write(tmp_path / "a.wav", np.full(samples, 0.1, np.float32), 16000)
    assert len(read_audio(tmp_path / "a.wav")) == samples


def test_no_sample_is_an_error(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0, np.float32), 16000)
    with pytest.raises(MediaError, match="no samples"):
        read_audio(tmp_path / "a.wav")
