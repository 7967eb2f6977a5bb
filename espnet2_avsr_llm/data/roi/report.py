"""What a dump looks like as a whole: `report.json`, and `report.png` for a glance at whether the lips are centred."""

import hashlib
import heapq
import json
from bisect import bisect_right
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from espnet2_avsr_llm.data import FPS, SAMPLE_RATE
from espnet2_avsr_llm.data.atomic import atomic_path, write_text
from espnet2_avsr_llm.data.journal import Entry

_SHEET = (6, 12)  # rows and columns of the contact sheet
_SCALES = np.geomspace(0.125, 8, 25).tolist()  # crop pixels per picture pixel
_DEGREES = list(range(-45, 46, 5))


class Report:
    """Counts over the utterances of a dump, added one at a time."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()
        self._scales, self._degrees = [0] * (len(_SCALES) - 1), [0] * (len(_DEGREES) - 1)
        self._chosen: list[tuple[bytes, str]] = []  # crops for the sheet: those of the largest hashes, a random choice that repeats

    def add(self, entry: Entry, stem: str) -> None:
        """Count an utterance that was dumped (or failed) to ``stem``."""
        self._counts["failed" if "reason" in entry else "utterances"] += 1
        self._notes.update(set(entry.get("notes", [])))
        for key in ("frames", "samples", "without_face", "black"):
            self._counts[key] += entry.get(key, 0)
        self._counts["several_faces"] += entry.get("faces", 1) > 1
        if "scale" in entry:
            self._scales[_bin(entry["scale"], _SCALES)] += 1
            self._degrees[_bin(entry["degrees"], _DEGREES)] += 1
        if entry.get("frames"):
            item = (hashlib.sha256(entry["utt"].encode()).digest(), f"{stem}.mp4")
            heapq.heappush(self._chosen, item)
            if len(self._chosen) > _SHEET[0] * _SHEET[1]:
                heapq.heappop(self._chosen)

    def summary(self) -> dict[str, Any]:
        """The report as plain values."""
        counts = self._counts
        return {
            "utterances": counts["utterances"],
            "failed": counts["failed"],
            "hours": {"sound": round(counts["samples"] / SAMPLE_RATE / 3600, 4), "video": round(counts["frames"] / FPS / 3600, 4)},
            "frames": counts["frames"],
            "frames_without_face": counts["without_face"],
            "frames_left_black": counts["black"],
            "utterances_with_several_faces": counts["several_faces"],  # the largest was followed
            "utterances_by_note": dict(sorted(self._notes.items())),
            "scale_histogram": {"edges": [round(edge, 4) for edge in _SCALES], "utterances": self._scales},
            "rotation_histogram": {"edges": _DEGREES, "utterances": self._degrees},
        }

    def write(self, folder: Path) -> None:
        """Write ``report.json``, and ``report.png`` where there is video."""
        write_text(folder / "report.json", json.dumps(self.summary(), indent=2, ensure_ascii=False) + "\n")
        if self._chosen:
            self._draw(folder / "report.png")

    def _draw(self, path: Path) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(12, 8.5), layout="constrained")
        FigureCanvasAgg(figure)
        sheet, below = figure.subfigures(2, 1, height_ratios=[3, 1])
        axes = sheet.subplots()
        axes.imshow(contact_sheet([file for _, file in sorted(self._chosen)]), cmap="gray", vmin=0, vmax=255)
        axes.set(title=f"{path.parent}: middle frames of random utterances, the cross is the middle of the crop", xticks=[], yticks=[])
        left, right = below.subplots(1, 2)
        left.stairs(self._scales, _SCALES)
        ticks = [0.125, 0.25, 0.5, 1, 2, 4, 8]
        left.set(xscale="log", xlabel="crop pixels per picture pixel (median of an utterance)", ylabel="utterances")
        left.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        left.minorticks_off()
        right.stairs(self._degrees, _DEGREES)
        right.set(xlabel="rotation in degrees", ylabel="utterances")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=80, metadata={"Software": None})


def _bin(value: float, edges: list[float]) -> int:
    """Which bin of a histogram a value is in; the first and the last take what is beyond."""
    return min(max(bisect_right(edges, value), 1), len(edges) - 1) - 1


def contact_sheet(files: list[str]) -> np.ndarray:
    """Middle frames of mouth-crop files, with a cross in the middle of each.

    Returns:
        (height, width) uint8.
    """
    from espnet2_avsr_llm.data.media import ROI_SIZE, read_roi

    rows, columns = min(_SHEET[0], -(-len(files) // _SHEET[1])), min(_SHEET[1], len(files))
    sheet = np.zeros((rows * ROI_SIZE, columns * ROI_SIZE), np.uint8)
    for place, file in enumerate(files):
        video = read_roi(file)
        patch = video[len(video) // 2].copy()
        middle = ROI_SIZE // 2
        patch[middle, middle - 4 : middle + 5] = patch[middle - 4 : middle + 5, middle] = 255
        row, column = divmod(place, columns)
        sheet[row * ROI_SIZE : (row + 1) * ROI_SIZE, column * ROI_SIZE : (column + 1) * ROI_SIZE] = patch
    return sheet
