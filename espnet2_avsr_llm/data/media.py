"""Sound and pictures in and out of files: 16 kHz mono float32, 25 fps frames, mouth-crop mp4.

Everything is decoded by PyAV with one thread and one shared reformatter (2-2.5 times faster than one
per frame); wav and flac go through soundfile. Time 0 of a file is the start of its video, for sound too,
so frame ``t`` always belongs to samples ``640 t ... 640 t + 639``. What had to be converted is said.

Shapes: T frames or samples, H height, W width.
"""

import functools
import heapq
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from espnet2_avsr_llm.data import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from espnet2_avsr_llm.data.atomic import atomic_path

ROI_SIZE = 96

# A playlist renamed to .mp4 must not make the decoder open other files or addresses.
_OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,mpegvideo,avi,asf,flv,ogg,"
    "wav,w64,aiff,flac,mp3,aac,amr",
}
_INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # formats in which seeking is exact
_TIMES_OF_DECODING = ("avi", "asf")  # formats that store when a picture is decoded, not when it is shown
_MOST_REORDERED = 16  # pictures that a decoder holds back, in any codec
# x264's macroblock tree gives other bytes from run to run, even with one thread.
_ROI_OPTIONS = {"crf": "18", "preset": "superfast", "x264-params": "threads=1:mbtree=0"}
_TO_LIMITED = np.rint(16 + np.arange(256) * 219 / 255).astype(np.uint8)  # full-range grey to the luma of video
_MISSING_SECONDS = 0.2  # shorter by more than this than its header says: truncated
# A file may not ask for more than this, whatever its header and timestamps say.
_MAX_GAP_SECONDS = 60  # between frames, or between the starts of sound and video
_UNTOLD = 0x7FFF0000  # from here on, the length in a wav header is that of a stream: not known when it was written
_MAX_PIXELS = 4096 * 4096
_RATES = (1000, 1_000_000)  # of sound, in Hz
_BLOCK = 1 << 20  # samples of all channels read at once
_MARGIN = 0.5  # seconds resampled before and after the samples wanted

_LOG = logging.getLogger(__name__)
Say = Callable[[str], None]


class MediaError(Exception):
    """A media file that cannot be used.

    Args:
        path: the file.
        found: what is wrong with it.
        expected: what was needed.
        fix: what to change.
    """

    def __init__(self, path: str | os.PathLike, found: str, expected: str, fix: str) -> None:
        self.path = os.fspath(path)
        super().__init__(f"{self.path}: found {found}; expected {expected}; {fix}")

    def __reduce__(self):  # exceptions cross process borders by their message otherwise
        return _rebuild, (type(self), self.path, self.args[0])


class NoStreamError(MediaError):
    """A sound media file that lacks the kind of stream asked for."""


def _rebuild(kind: type[MediaError], path: str, message: str) -> MediaError:
    error = kind.__new__(kind)
    error.path, error.args = path, (message,)
    return error


def read_audio(
    path: str | os.PathLike, start: float = 0.0, end: float | None = None, partial: bool = False, say: Say | None = None
) -> np.ndarray:
    """Read the sound of a file, or of a part of it.

    Args:
        path: a wav or flac file, or any container that PyAV knows; any rate, channels, sample format.
        start: seconds, rounded down to a frame of 1/25 s.
        end: seconds, likewise; None reads to the end.
        partial: take what a damaged or truncated file still gives, and say so.
        say: called with a sentence about each conversion; None logs it.

    Returns:
        (T,) float32 at 16 kHz, the mean of the channels, nominally in [-1, 1] and never clipped. Where the
        file has video, its start is time 0; where the sound begins later or pauses there is silence.

    Raises:
        NoStreamError: there is no sound in the file.
        MediaError: not readable, empty, truncated, or with NaN or infinite samples.
    """
    path = os.fspath(path)
    say = say or functools.partial(_LOG.info, "%s: %s", path)
    first, last = _frame(start) * SAMPLES_PER_FRAME, None if end is None else _frame(end) * SAMPLES_PER_FRAME
    if path.lower().endswith((".wav", ".flac")):
        _check_file(path)
        wave = _read_soundfile(path, first, last, partial, say)
    else:
        with _opened(path, "audio") as (container, stream):
            wave = _decode_audio(path, container, stream, first, last, partial, say)
    if not len(wave):
        raise MediaError(path, f"no samples after {start:g} s", "sound", "remove it from the list or make the file again")
    if last is not None and len(wave) < last - first - _MISSING_SECONDS * SAMPLE_RATE:
        raise MediaError(path, f"sound that ends at {start + len(wave) / SAMPLE_RATE:.2f} s", f"{end:.2f} s", "correct the segment's end")
    if not np.isfinite(wave).all():
        raise MediaError(path, "NaN or infinite samples", "finite samples", "convert the file again")
    return wave


def video_frames(
    path: str | os.PathLike, start: float = 0.0, end: float | None = None, partial: bool = False, say: Say | None = None
) -> Iterator[np.ndarray]:
    """Decode the pictures of a file, or of a part of it, at 25 fps, one at a time.

    Args:
        path: any container, codec and frame rate, constant or variable; rotation metadata is applied.
        start, end, partial, say: see ``read_audio``.

    Yields:
        (H, W, 3) uint8 RGB; frame t is the one nearest in time to ``start`` + t / 25 s.

    Raises:
        NoStreamError: there is no video in the file (a cover picture is not one).
        MediaError: not readable, empty or truncated.
    """
    path, convert = os.fspath(path), VideoReformatter()
    say = say or functools.partial(_LOG.info, "%s: %s", path)
    first, last = _frame(start), None if end is None else _frame(end)
    done, shape = first, None
    with _opened(path, "video") as (container, stream):
        other_rate = stream.average_rate and abs(stream.average_rate - FPS) > 0.01
        if other_rate:
            say(f"video of {float(stream.average_rate):.3f} fps resampled to {FPS}")
        decoded = _decoded_from(path, container, stream, first, partial and say)
        for frame in _at_25_fps(decoded, _start(stream), first, last, None if other_rate else say):
            picture = convert.reformat(frame, format="rgb24").to_ndarray()
            if shape not in (None, picture.shape):
                raise MediaError(path, f"pictures of {shape[1::-1]}, then of {picture.shape[1::-1]} pixels", "one size", "convert the file")
            if shape is None and frame.rotation:
                say(f"video turned by {frame.rotation} degrees, as its metadata say")
            shape, done = picture.shape, done + 1
            yield np.ascontiguousarray(np.rot90(picture, frame.rotation // 90)) if frame.rotation else picture
    if done == first:
        raise MediaError(path, f"no video frames after {start:g} s", "video", "remove it from the list or make the file again")
    if last is not None and done < last - _MISSING_SECONDS * FPS:
        raise MediaError(path, f"video that ends at {done / FPS:.2f} s", f"{end:.2f} s", "correct the segment's end")


def read_video(path: str | os.PathLike, start: float = 0.0, end: float | None = None) -> np.ndarray:
    """All pictures of ``video_frames`` as one array (T, H, W, 3) uint8 RGB."""
    return np.stack(list(video_frames(path, start, end)))


def duration(path: str | os.PathLike, kind: str) -> float:
    """Seconds that the ``audio`` or ``video`` of a file lasts by its header, which is all that is read.

    Raises:
        NoStreamError, MediaError: as ``read_audio``; also where the header does not tell.
    """
    path = os.fspath(path)
    with _opened(path, kind) as (_, stream):
        seconds = _declared_end(stream) - _start(stream)
    if seconds <= 0:
        raise MediaError(path, f"no duration of {kind} in its header", "a file that tells", "convert it to mp4")
    return seconds


def read_roi(path: str | os.PathLike, partial: bool = False, say: Say | None = None) -> np.ndarray:
    """Read a mouth crop written by ``write_roi``.

    Args:
        path: the file.
        partial, say: see ``read_audio``.

    Returns:
        (T, 96, 96) uint8 grey, full range.

    Raises:
        MediaError: not readable, or of another size.
    """
    path, convert = os.fspath(path), VideoReformatter()
    say = say or functools.partial(_LOG.info, "%s: %s", path)
    with _opened(path, "video") as (container, stream):
        if (stream.width, stream.height) != (ROI_SIZE, ROI_SIZE):
            found = f"{stream.width}x{stream.height} video"
            raise MediaError(path, found, f"{ROI_SIZE}x{ROI_SIZE} mouth crops", "run stage 3 on it")
        decoded = _decoded(path, container, stream, partial and say)
        return np.stack([convert.reformat(frame, format="gray").to_ndarray() for frame in decoded])


def write_roi(path: str | os.PathLike, frames: Iterable[np.ndarray]) -> int:
    """Write mouth crops as h264 mp4, byte for byte the same for the same frames.

    Args:
        path: the mp4 file; it appears whole or not at all.
        frames: (96, 96) uint8 grey each, one at least.

    Returns:
        the number of frames.

    Raises:
        ValueError: another shape or type, or no frame.
    """
    # yuv420p, not grey: h264 marks no range, and grey would be read back as limited range.
    count, picture = 0, np.full((ROI_SIZE * 3 // 2, ROI_SIZE), 128, np.uint8)
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options=_ROI_OPTIONS)
        stream.width = stream.height = ROI_SIZE
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            if frame.dtype != np.uint8 or frame.shape != (ROI_SIZE, ROI_SIZE):
                raise ValueError(f"{path}: mouth crops are uint8 (T, 96, 96), got frames of {frame.dtype} {frame.shape}")
            _TO_LIMITED.take(frame, out=picture[:ROI_SIZE], mode="clip")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
            count += 1
        if not count:
            raise ValueError(f"{path}: mouth crops are uint8 (T, 96, 96), got no frame")
        container.mux(stream.encode())
    return count


def write_audio(path: str | os.PathLike, wave: np.ndarray, say: Say | None = None) -> None:
    """Write (T,) float samples at 16 kHz as 16-bit flac, scaled down where they exceed 1; the file appears whole or not at all.

    ``say`` is as of ``read_audio``.
    """
    import soundfile

    say = say or functools.partial(_LOG.info, "%s: %s", path)
    if (peak := np.abs(wave).max(initial=0)) > 1:
        say("sound scaled down to a peak of 1")
        wave = wave / peak
    with atomic_path(path) as temporary:
        soundfile.write(temporary, wave, SAMPLE_RATE, format="FLAC", subtype="PCM_16")


def _frame(seconds: float) -> int:
    return int(seconds * FPS + 1e-6)  # 4.6 * 25 is 114.999... in binary


def _check_file(path: str) -> None:
    """Refuse what is no regular file (a pipe would block for ever), is empty, or cannot be opened."""
    if not os.path.isfile(path):
        raise MediaError(path, "no such file", "a media file", "correct the path")
    if os.path.getsize(path) == 0:
        raise MediaError(path, "an empty file", "a media file", "fetch or make the file again")
    if not os.access(path, os.R_OK):
        raise MediaError(path, "no permission to read", "a readable file", "change its permissions")


@contextmanager
def _opened(path: str, kind: str) -> Iterator[tuple]:
    """Open a container and its first stream of ``kind``; turn every decoder error into a MediaError."""
    _check_file(path)
    try:
        # "file:" keeps a name such as concat:x from being taken for a protocol.
        with av.open(f"file:{path}", options=_OPEN_OPTIONS, metadata_errors="replace") as container:
            streams = [s for s in getattr(container.streams, kind) if not _is_cover(s)]
            if not streams:
                others = ", ".join(s.type for s in container.streams) or "none"
                raise NoStreamError(path, f"no {kind} (streams: {others})", kind, "use a task without it")
            if streams[0].codec_context is None:
                raise MediaError(path, f"{kind} of an unknown codec", "a known one", "the file is corrupt, or convert it")
            if kind == "audio":
                _check_rate(path, streams[0].rate)
            if kind == "video" and streams[0].width * streams[0].height > _MAX_PIXELS:
                raise MediaError(path, f"{streams[0].width}x{streams[0].height} video", f"at most {_MAX_PIXELS} pixels", "scale it down")
            streams[0].codec_context.thread_count = 1
            yield container, streams[0]
    except (av.FFmpegError, ValueError, EOFError) as error:
        fix = "the file is corrupt, truncated or no media file: fetch or make it again"
        raise MediaError(path, f"undecodable data ({error})", f"a media file with {kind}", fix) from error


def _check_rate(path: str, rate: int) -> None:
    if not _RATES[0] <= rate <= _RATES[1]:
        raise MediaError(path, f"sound of {rate} Hz", "1 kHz to 1 MHz", "the file is corrupt: fetch or make it again")


def _is_cover(stream: av.stream.Stream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _decoded(path: str, container, stream, partial: Say | bool = False) -> Iterator:
    """Decode the frames of a stream in order of time; a damaged frame or an early end is an error, or told to ``partial``."""
    time = end = None
    reordered = stream.type == "video" and container.format.name in _TIMES_OF_DECODING
    frames = _in_order_of_showing(container, stream) if reordered else container.decode(stream)
    try:
        for frame in frames:
            if frame.is_corrupt or frame.time is None:
                raise MediaError(path, f"a damaged frame after {end or 0:.2f} s", "whole frames", "fetch it again")
            if time is not None and frame.time < time - (_MISSING_SECONDS if stream.type == "audio" else 0):
                raise MediaError(path, f"a frame of {frame.time:.2f} s after that of {time:.2f} s", "times that rise", "convert it again")
            if end is not None and frame.time > end + _MAX_GAP_SECONDS:
                raise MediaError(path, f"no {stream.type} from {end:.2f} to {frame.time:.2f} s", "a continuous recording", "convert it again")
            if _duration(frame) > _MAX_GAP_SECONDS:
                raise MediaError(path, f"a frame of {_duration(frame):.0f} s at {frame.time:.2f} s", "a continuous recording", "convert it again")
            time, end = frame.time, frame.time + _duration(frame)
            yield frame
        declared = _declared_end(stream)
        if end is not None and end < declared - _MISSING_SECONDS:
            found = f"{stream.type} that ends at {end:.2f} s"
            raise MediaError(path, found, f"{declared:.2f} s as its header says", "the file is truncated: fetch it again")
    except (av.FFmpegError, MediaError) as error:
        if not partial or end is None:
            raise
        _LOG.warning("%s: %s", path, error)
        partial(f"{stream.type} is used as far as it goes")


def _in_order_of_showing(container, stream) -> Iterator[av.VideoFrame]:
    """Decode pictures, which come in the order of showing, and give them their times of decoding in that order, too."""
    waiting: deque[av.VideoFrame] = deque()
    times: list[int] = []
    damage = None
    for packet in container.demux(stream):
        packet.pts = packet.dts
        try:
            decoded = packet.decode()
        except av.FFmpegError as error:
            damage, decoded = error, []
        for frame in decoded:
            waiting.append(frame)
            heapq.heappush(times, frame.pts or 0)  # without a time: refused later, as going back
        for _ in range(len(waiting) - (_MOST_REORDERED if packet.size and not damage else 0)):
            frame = waiting.popleft()
            frame.pts = heapq.heappop(times)
            yield frame
        if damage:
            raise damage


def _decoded_from(path: str, container, stream, first: int, partial: Say | bool) -> Iterator:
    """``_decoded`` frames from number ``first`` of 1/25 s, or from one before it; all where a format has no exact seeking.

    Frames that are shown before a keyframe but follow it in the file (open GOP) need the keyframe before that.
    """
    begin, back = _start(stream), 0
    wanted = begin + first / FPS
    while container.format.name in _INDEXED and first:
        container.seek(int(max(wanted - back, begin) / stream.time_base), stream=stream)
        frames = _decoded(path, container, stream, partial)
        head = list(itertools.islice(frames, 1))
        if wanted - back <= begin or head and head[0].time <= wanted:
            return itertools.chain(head, frames)
        back = 2 * back + 1
    return _decoded(path, container, stream, partial)


def _declared_end(stream) -> float:
    """Seconds at which a stream ends by its header, 0 where that does not tell; Matroska has it as a tag."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base) + _start(stream)
    hours, minutes, seconds = (stream.metadata.get("DURATION") or "0:0:0").split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def _duration(frame: av.VideoFrame | av.AudioFrame) -> float:
    if isinstance(frame, av.AudioFrame):
        return frame.samples / frame.sample_rate
    return float((frame.duration or 0) * frame.time_base) or 1 / FPS


def _start(stream) -> float:
    return float((stream.start_time or 0) * stream.time_base)


def _at_25_fps(frames: Iterator[av.VideoFrame], start: float, first: int, last: int | None, say: Say | None) -> Iterator[av.VideoFrame]:
    """Give, for each 1/25 s after ``start`` from number ``first`` to before ``last``, the frame nearest in time.

    ``say`` is told once if some frame comes twice or not at all.
    """
    done, previous, stop = first, None, np.inf if last is None else last
    for frame in frames:
        if previous is not None:
            middle, before = (previous.time + frame.time) / 2 - start, done
            while done < min(middle * FPS, stop):
                yield previous
                done += 1
            if say and before > first and done != before + 1:
                say(f"video of a variable frame rate resampled to {FPS}")
                say = None
        if done >= stop:
            return
        previous = frame
    if previous is not None:
        for _ in range(done, min(round((previous.time + _duration(previous) - start) * FPS), stop)):
            yield previous


def _decode_audio(path: str, container, stream, first: int, last: int | None, partial: bool, say: Say) -> np.ndarray:
    """Samples ``first`` to ``last`` of one audio stream, counted from the start of the video."""
    if (stream.rate, stream.channels) != (SAMPLE_RATE, 1):
        say(f"sound of {stream.rate} Hz, {stream.channels} channels converted to {SAMPLE_RATE} Hz mono")
    video = [s for s in container.streams.video if not _is_cover(s)]
    origin = _start((video or [stream])[0])
    begin = origin + first / SAMPLE_RATE - _MARGIN if first else -np.inf
    until = np.inf if last is None else origin + last / SAMPLE_RATE + _MARGIN
    # no seeking: AAC fills bands with noise that depends on all frames before
    frames = itertools.takewhile(lambda frame: frame.time < until, _decoded(path, container, stream, partial and say))
    frames = itertools.dropwhile(lambda frame: frame.time < begin, frames)
    stretches = [(round((time - origin) * SAMPLE_RATE) - first, wave) for time, wave in _stretches(frames)]
    if len(stretches) > 1:
        say("sound put where its timestamps say")
    if stretches and stretches[0][0] > _MAX_GAP_SECONDS * SAMPLE_RATE:
        raise MediaError(path, f"sound that begins {stretches[0][0] / SAMPLE_RATE:.0f} s late", "sound beside the video", "convert it again")
    wave = np.zeros(max([at + len(stretch) for at, stretch in stretches] + [0]), np.float32)
    for at, stretch in stretches:
        wave[max(at, 0) : max(at + len(stretch), 0)] = stretch[max(-at, 0) :]
    return wave[: None if last is None else last - first]


def _stretches(frames: Iterable[av.AudioFrame]) -> Iterator[tuple[float, np.ndarray]]:
    """Stretches of sound that stay within 1/25 s of their timestamps: start in seconds, samples (T,) at 16 kHz."""
    start = end = None
    for frame in frames:
        if start is not None and abs(frame.time - end) > 1 / FPS:
            yield start, _mean_of_channels(pieces + to_16k.resample(None))
            start = None
        if start is None:
            start = end = frame.time
            pieces, to_16k = [], av.AudioResampler(format="fltp", rate=SAMPLE_RATE)
        end += _duration(frame)  # not from the timestamp: what each of them is off by adds up
        pieces += to_16k.resample(frame)
    if start is not None:
        yield start, _mean_of_channels(pieces + to_16k.resample(None))


def _mean_of_channels(frames: list[av.AudioFrame]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *(f.to_ndarray().mean(0, dtype=np.float32) for f in frames)])


def _read_soundfile(path: str, first: int, last: int | None, partial: bool, say: Say) -> np.ndarray:
    """Samples ``first`` to ``last`` (at 16 kHz) of a wav or flac file."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            rate, there = file.samplerate, file.frames
            declared = round(there * _untruncated(path))
            _check_rate(path, rate)
            if (rate, file.channels) != (SAMPLE_RATE, 1):
                say(f"sound of {rate} Hz, {file.channels} channels converted to {SAMPLE_RATE} Hz mono")
            begin, stop = (declared if x is None else min(round(x * rate / SAMPLE_RATE), declared) for x in (first, last))
            file.seek(min(begin, there))
            blocks = file.blocks(_BLOCK // file.channels, frames=stop - begin, dtype="float32", always_2d=True)
            mono = np.concatenate([np.zeros(0, np.float32), *(block.mean(1, dtype=np.float32) for block in blocks)])
    except (soundfile.LibsndfileError, RuntimeError) as error:
        if partial:  # libsndfile gives nothing of a block that is damaged
            with _opened(path, "audio") as (container, stream):
                return _decode_audio(path, container, stream, first, last, partial, say)
        fix = "the file is corrupt or in another format: convert it again"
        raise MediaError(path, f"undecodable data ({error})", "a wav or flac file", fix) from error
    if stop - begin - len(mono) > _MISSING_SECONDS * rate:
        expected = f"{declared / rate:.2f} s as its header says"
        error = MediaError(path, f"audio that ends at {there / rate:.2f} s", expected, "the file is truncated: fetch it again")
        if not partial:
            raise error
        _LOG.warning("%s", error)
        say("audio is used as far as it goes")
    return mono if rate == SAMPLE_RATE or not len(mono) else _resample(mono, rate)


def _untruncated(path: str) -> float:
    """How many times as long as it is a wav file should be by its header (libsndfile corrects the header); 1 where that does not tell."""
    with open(path, "rb") as file:
        head = file.read(8)
    declared, size = int.from_bytes(head[4:], "little") + len(head), os.path.getsize(path)
    return declared / size if head[:4] == b"RIFF" and size < declared < _UNTOLD else 1.0


def _resample(mono: np.ndarray, rate: int) -> np.ndarray:
    """Resample (T,) float32 from ``rate`` to 16 kHz."""
    to_16k = av.AudioResampler(format="fltp", rate=SAMPLE_RATE)
    frame = av.AudioFrame.from_ndarray(mono[None], format="fltp", layout="mono")
    frame.sample_rate = rate
    return _mean_of_channels(to_16k.resample(frame) + to_16k.resample(None))
