"""Generated corpora in the layouts of the published ones: small, and with true media where a reader looks into them."""

from fractions import Fraction

import av
import numpy as np
import soundfile

FACES = "Ref: 0af00UcTOSc\n\nFRAME \tX \tY \tW \tH \n000000 \t0.3 \t0.2 \t0.1 \t0.2 \n"
LONG = [("W", 2.0 * i, 2.0 * i + 1) for i in range(20)]  # words over 39 s: three segments of less than 16 s
MUAVIC_TEXTS = {"es": ["¿Cómo estás?", "(Risas) Hola.", "...", "Muy bien."], "ar": ["مرحبا", "نعم", "لا", "شكرا"]}


def touch(path):
    """Make an empty file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def write_clip(stem, text, words=None, faces="", mp4=True):
    """A clip of LRS: an empty mp4, and a txt with the words' times where they are given."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    if mp4:
        stem.with_suffix(".mp4").touch()
    if text is not None:
        table = "".join(f"{w} {start:.2f} {end:.2f} 9.1\n" for w, start, end in words or [])
        head = "\nWORD START END ASDSCORE\n" if words is not None else ""
        stem.with_suffix(".txt").write_text(f"Text:  {text}\nConf:  5\n{faces}{head}{table}")


def make_lrs3(root):
    """Ten videos of trainval, three of pretrain, two of test, three clips each."""
    for partition, videos in (("pretrain", "cdw"), ("trainval", "abcdefghij"), ("test", "yz")):
        for video in videos:
            for clip in range(3):
                write_clip(root / partition / video / f"{clip:05}", f"{partition} {video} {clip}".upper(), [("A", 0.1, 0.5)])
    return root


def make_lrs2(folder, lists):
    """Five recordings of main, two of pretrain (one to be cut); the lists lie in another folder, and one names a clip too many."""
    for partition, names in (("main", ("1/a", "1/b", "2/a", "3/a", "4/a")), ("pretrain", ("5/a", "6/a"))):
        for name in names:
            write_clip(folder / partition / name, f"WORDS OF {name[0]}", LONG if name == "5/a" else [("A", 0, 1)] if name == "6/a" else None)
    for name, clips in {"train": ("1/a", "1/b"), "val": ("2/a", "9/z"), "test": ("3/a NF", "4/a MV"), "pretrain": ("5/a", "6/a")}.items():
        (lists / f"{name}.txt").write_text("".join(f"{clip}\n" for clip in clips))
    return folder


def make_muavic(root, suffix="_avsr"):
    """Two languages; in train one clip lacks its video and one its text; valid was moved since (and its newer manifest lacks the talks' folders)."""
    for language, texts in MUAVIC_TEXTS.items():
        folder = root / language
        for split in ("train", "valid", "test"):
            lines = []
            for i in range(len(texts)):
                talk = f"{language}{split}Talk-{i // 2}"
                clip = f"{talk}_{i:04}"
                for kind, ending in (("audio", "wav"), ("video", "mp4")):
                    if (split, kind, i) != ("train", "video", 3):
                        touch(folder / kind / split / talk / f"{clip}.{ending}")
                place = "/gone/{}/valid" if split == "valid" else f"{folder}/{{}}/{split}"
                place += "" if split == "valid" and suffix else f"/{talk}"
                paths = [f"{place.format(kind)}/{clip}.{ending}" for kind, ending in (("video", "mp4"), ("audio", "wav"))]
                lines.append("\t".join([clip if suffix else f"{split}/{talk}/{clip}", *paths, "50", "32000"]) + "\n")
            (folder / f"{split}{suffix}.tsv").write_text("/\n" + "".join(lines))
            (folder / f"{split}{suffix}.{language}").write_text("".join(f"{text}\n" for text in texts))
    return root


def write_media(path, frames=0, seconds=0.0, size=16):
    """A video of 25 fps, of noise that stands still, or silence as AAC, or both."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(0).integers(0, 255, (size, size, 3), np.uint8)
    with av.open(str(path), "w", format="mp4") as out:
        if frames:
            video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            video.width, video.height, video.pix_fmt = size, size, "yuv420p"
        if seconds:
            audio = out.add_stream("aac", rate=16000, layout="mono")
        for _ in range(frames):
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        if frames:
            out.mux(video.encode())
        if seconds:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, round(16000 * seconds)), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
            out.mux(audio.encode(frame))
            out.mux(audio.encode())


def make_vox2(root):
    """Clips of 50, 400, 823 and 803 frames (the last chunk too short), and unusable ones; sound as m4a in dev, as wav in test."""
    dev, test = "dev/{}/id00012/ab-_c/0000", "test/{}/id00017/x/0000"
    for name, frames in {f"{dev}1": 50, f"{dev}2": 400, f"{test}1": 811 + 12, f"{test}2": 803, "dev/{}/id00013/v/00001": 50}.items():
        write_media(root / f"{name.format('mp4')}.mp4", frames)
        if name.startswith("dev"):
            write_media(root / f"{name.format('aac')}.m4a", seconds=frames / 25)
        else:
            touch(root / f"{name.format('wav')}.wav")
            soundfile.write(root / f"{name.format('wav')}.wav", np.zeros(frames * 640), 16000)
    for number, frames, seconds in ((3, 50, None), (4, 50, 4.0), (5, 11, 0.44)):  # no sound, sound of another length, too short
        write_media(root / f"{dev.format('mp4')}{number}.mp4", frames)
        if seconds:
            write_media(root / f"{dev.format('aac')}{number}.m4a", seconds=seconds)
    for kind, ending in (("mp4", "mp4"), ("aac", "m4a")):
        touch(root / f"{dev.format(kind)}6.{ending}").write_text("no media")
    return root


def make_crops(root):
    """Mouth crops of LRS3 in auto_avsr's layout, texts beside; the second has no wav, the third no text, the last is of a flat layout."""
    folder = root / "lrs3"
    for name in ("test/aa/00001", "test/aa/00002", "trainval/-b/00001_00", "clip_1"):
        video = touch(folder / "lrs3_video_seg16s" / f"{name}.mp4")
        if not name.endswith("2"):
            touch(video.with_suffix(".wav"))
        if not name.startswith("trainval"):
            touch(folder / "lrs3_text_seg16s" / f"{name}.txt").write_text(f"TEXT OF {name[-1]}")
    return root
