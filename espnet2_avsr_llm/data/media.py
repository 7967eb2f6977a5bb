"""Sound and pictures in and out of files: 16 kHz mono float32, 25 fps frames, mouth-crop mp4.

Everything is decoded by PyAV with one thread and one shared reformatter (2-2.5 times faster than one
per frame); wav and flac go through soundfile. Time 0 of a file is the first frame of its video, for
sound too, so frame ``t`` always belongs to samples ``640 t ... 640 t + 639``.

Shapes: T frames or samples, H height, W width.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from espnet2_avsr_llm.data.atomic import atomic_path

SAMPLE_RATE = 16000
FPS = 25
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
ROI_SIZE = 96

# A playlist renamed to .mp4 must not make the decoder open other files or addresses.
_OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,mpegvideo,avi,asf,flv,ogg,"
    "wav,w64,aiff,flac,mp3,aac,amr",
}
# x264's macroblock tree gives other bytes from run to run, even with one thread.
_ROI_OPTIONS = {"crf": "18", "preset": "veryfast", "x264-params": "threads=1:mbtree=0"}
_MISSING_SECONDS = 0.2  # shorter by more than this than its header says: truncated

_LOG = logging.getLogger(__name__)


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


def read_audio(path: str | os.PathLike) -> np.ndarray:
    """Read the sound of a file.

    Args:
        path: a wav or flac file, or any container that PyAV knows; any rate, channels, sample format.

    Returns:
        (T,) float32 at 16 kHz, the mean of the channels, nominally in [-1, 1] and never clipped. Where the
        file has video, sample 0 belongs to the first frame (silence is put in, or samples are cut).

    Raises:
        NoStreamError: there is no sound in the file.
        MediaError: not readable, empty, truncated, or with NaN or infinite samples.
    """
    path = os.fspath(path)
    if path.lower().endswith((".wav", ".flac")):
        _check_file(path)
        wave = _read_soundfile(path)
    else:
        with _opened(path, "audio") as (container, stream):
            wave = _decode_audio(path, container, stream)
    if not len(wave):
        raise MediaError(path, "no samples", "sound", "remove it from the list or make the file again")
    if not np.isfinite(wave).all():
        raise MediaError(path, "NaN or infinite samples", "finite samples", "convert the file again")
    return wave


def read_video(path: str | os.PathLike) -> np.ndarray:
    """Read the pictures of a file at 25 fps.

    Args:
        path: any container, codec and frame rate, constant or variable; rotation metadata is applied.

    Returns:
        (T, H, W, 3) uint8 RGB; frame t is the one nearest in time to t / 25 s after the first.

    Raises:
        NoStreamError: there is no video in the file (a cover picture is not one).
        MediaError: not readable, empty or truncated.
    """
    path, convert = os.fspath(path), VideoReformatter()
    with _opened(path, "video") as (container, stream):
        if stream.average_rate and abs(stream.average_rate - FPS) > 0.01:
            _LOG.info("%s: %.3f fps resampled to %d", path, stream.average_rate, FPS)
        frames = [
            np.rot90(convert.reformat(frame, format="rgb24").to_ndarray(), frame.rotation // 90)
            for frame in _at_25_fps(_decode_video(path, container, stream))
        ]
    if not frames:
        raise MediaError(path, "no video frames", "video", "remove it from the list or make the file again")
    return np.stack(frames)


def read_roi(path: str | os.PathLike) -> np.ndarray:
    """Read a mouth crop written by ``write_roi``.

    Returns:
        (T, 96, 96) uint8 grey, full range.

    Raises:
        MediaError: not readable, or of another size.
    """
    path, convert = os.fspath(path), VideoReformatter()
    with _opened(path, "video") as (container, stream):
        if (stream.width, stream.height) != (ROI_SIZE, ROI_SIZE):
            found = f"{stream.width}x{stream.height} video"
            raise MediaError(path, found, f"{ROI_SIZE}x{ROI_SIZE} mouth crops", "run stage 3 on it")
        decoded = _decode_video(path, container, stream)
        return np.stack([convert.reformat(frame, format="gray").to_ndarray() for frame in decoded])


def write_roi(path: str | os.PathLike, frames: np.ndarray) -> None:
    """Write mouth crops as h264 mp4, byte for byte the same for the same frames.

    Args:
        path: the mp4 file; it appears whole or not at all.
        frames: (T, 96, 96) uint8 grey, T > 0.

    Raises:
        ValueError: another shape or type.
    """
    if frames.dtype != np.uint8 or frames.shape[1:] != (ROI_SIZE, ROI_SIZE) or not len(frames):
        raise ValueError(f"{path}: mouth crops are uint8 (T, 96, 96), got {frames.dtype} {frames.shape}")
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        # yuv420p, not grey: h264 marks no range, and grey would be read back as limited range.
        stream = container.add_stream("libx264", rate=FPS, options=_ROI_OPTIONS)
        stream.width = stream.height = ROI_SIZE
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode())


def write_audio(path: str | os.PathLike, wave: np.ndarray) -> None:
    """Write (T,) float samples at 16 kHz as 16-bit flac; the file appears whole or not at all."""
    import soundfile

    with atomic_path(path) as temporary:
        soundfile.write(temporary, wave, SAMPLE_RATE, format="FLAC", subtype="PCM_16")


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
            streams[0].codec_context.thread_count = 1
            yield container, streams[0]
    except (av.FFmpegError, ValueError, EOFError) as error:
        fix = "the file is corrupt, truncated or no media file: fetch or make it again"
        raise MediaError(path, f"undecodable data ({error})", f"a media file with {kind}", fix) from error


def _is_cover(stream: av.stream.Stream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _decode_video(path: str, container, stream) -> Iterator[av.VideoFrame]:
    """Decode all frames; a damaged frame or an early end is an error, not a shorter clip."""
    end = 0.0
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise MediaError(path, f"a damaged frame at {frame.time} s", "whole frames", "fetch it again")
        end = frame.time + _duration(frame)
        yield frame
    _check_end(path, stream, end)


def _duration(frame: av.VideoFrame) -> float:
    return float((frame.duration or 0) * frame.time_base) or 1 / FPS


def _start(stream) -> float:
    return float((stream.start_time or 0) * stream.time_base)


def _check_end(path: str, stream, end: float) -> None:
    declared = float((stream.duration or 0) * stream.time_base) + _start(stream)
    if end < declared - _MISSING_SECONDS:
        found = f"{stream.type} that ends at {end:.2f} s"
        raise MediaError(path, found, f"{declared:.2f} s as its header says", "the file is truncated: fetch it again")


def _at_25_fps(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Give, for each 1/25 s from the first frame on, the frame nearest in time."""
    done, start, previous = 0, 0.0, None
    for frame in frames:
        if previous is None:
            start = frame.time
        else:
            middle = (previous.time + frame.time) / 2 - start
            while done < middle * FPS:
                yield previous
                done += 1
        previous = frame
    if previous is not None:
        for _ in range(done, round((previous.time + _duration(previous) - start) * FPS)):
            yield previous


def _decode_audio(path: str, container, stream) -> np.ndarray:
    """Decode, resample and average one audio stream, shifted so that 0 is the start of the video."""
    to_16k = av.AudioResampler(format="fltp", rate=SAMPLE_RATE)
    start = end = None
    pieces = []
    for frame in container.decode(stream):
        start = frame.time if start is None else start
        end = frame.time + frame.samples / frame.sample_rate
        pieces += to_16k.resample(frame)
    if start is None:
        return np.zeros(0, np.float32)
    _check_end(path, stream, end)
    wave = _mean_of_channels(pieces + to_16k.resample(None))
    video = [s for s in container.streams.video if not _is_cover(s)]
    late = round((start - _start(video[0])) * SAMPLE_RATE) if video else 0
    return np.pad(wave, (late, 0)) if late > 0 else wave[-late:]


def _mean_of_channels(frames: list[av.AudioFrame]) -> np.ndarray:
    return np.concatenate([f.to_ndarray().mean(0, dtype=np.float32) for f in frames])


def _read_soundfile(path: str) -> np.ndarray:
    """Read a wav or flac file to 16 kHz mono."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            wave, rate, declared = file.read(dtype="float32", always_2d=True), file.samplerate, file.frames
    except (soundfile.LibsndfileError, RuntimeError) as error:
        fix = "the file is corrupt or in another format: convert it again"
        raise MediaError(path, f"undecodable data ({error})", "a wav or flac file", fix) from error
    if len(wave) < declared:
        raise MediaError(path, f"{len(wave)} samples", f"{declared} as its header says", "fetch it again")
    mono = wave.mean(1, dtype=np.float32)
    return mono if rate == SAMPLE_RATE or not len(mono) else _resample(mono, rate)


def _resample(mono: np.ndarray, rate: int) -> np.ndarray:
    """Resample (T,) float32 from ``rate`` to 16 kHz."""
    to_16k = av.AudioResampler(format="fltp", rate=SAMPLE_RATE)
    frame = av.AudioFrame.from_ndarray(mono[None], format="fltp", layout="mono")
    frame.sample_rate = rate
    return _mean_of_channels(to_16k.resample(frame) + to_16k.resample(None))
