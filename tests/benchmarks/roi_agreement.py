"""How far apart the mouth crops of two dumps of the same clips are, such as those of the default landmarks and of mediapipe.

Run by hand; mediapipe 0.10.21 needs an environment of its own (numpy < 2):
  python -m espnet2_avsr_llm.bin.dump --in_dir DATA --out_dir litert
  python -m venv mp; mp/bin/pip install mediapipe==0.10.21 av==18.1.0 soundfile tqdm
  PYTHONPATH=. mp/bin/python -m espnet2_avsr_llm.bin.dump --in_dir DATA --out_dir mediapipe --landmarks mediapipe
  python tests/benchmarks/roi_agreement.py litert mediapipe

Exit status 1 when the centres are more than 0.7 pixels apart on average, or the scales differ by more than 1.5 %.

On 50 clips of GRID: 0.15 pixels and 0.07 % (the face looked for in every second frame, as by default), 0.01 pixels with
--landmark_stride 1 for both. Of the 52,496 frames of GRID s1's training clips 106 (0.2 %) had no landmarks (report.json of the dump). The
log of the dump says its speed: 433 to 467 frames per CPU second from files of 360x288 to crops on disk, one core, that is 54 to 58
core-hours for 1,000 hours of video.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

MOST_PIXELS, MOST_PERCENT = 0.7, 1.5


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="dump whose crop pixels are the unit")
    parser.add_argument("second", type=Path)
    return parser


def main() -> int:
    args = get_parser().parse_args()
    names = sorted(str(path.relative_to(args.first)) for path in args.first.glob("data/*/*.npz"))
    pairs = [[np.load(folder / name) for folder in (args.first, args.second)] for name in names]
    compared = [compare(*(clip["transforms"] for clip in pair)) for pair in pairs]
    offsets, scales = (np.concatenate(column) for column in zip(*compared))
    missed = np.sum([[(~clip["has_face"]).sum() for clip in pair] for pair in pairs], 0)
    distance, percent = np.hypot(*offsets.T), 100 * np.abs(scales - 1)
    of_clips = [np.hypot(*clip.mean(0)) for clip, _ in compared]
    lines = [
        f"{len(names)} clips, {len(scales)} frames with a crop in both, {missed[0]} and {missed[1]} frames without landmarks",
        f"centre: mean offset ({offsets[:, 0].mean():.2f}, {offsets[:, 1].mean():.2f}) crop pixels, mean distance {distance.mean():.2f}, "
        f"95 % below {np.quantile(distance, 0.95):.2f}, largest {distance.max():.2f}; largest mean offset of a clip {max(of_clips):.2f}",
        f"scale: ratio {scales.mean():.4f}, mean deviation {percent.mean():.2f} %, "
        f"95 % below {np.quantile(percent, 0.95):.2f} %, largest {percent.max():.2f} %",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return int(not (distance.mean() <= MOST_PIXELS and percent.mean() <= MOST_PERCENT))


def compare(first, second):
    """Offset (T, 2) of the second's centre in pixels of the first's crops, and ratio (T,) of the scales; from transforms (T, 2, 3)."""
    known = ~np.isnan(first[:, 0, 0]) & ~np.isnan(second[:, 0, 0])
    first, second = first[known], second[known]
    centre = np.linalg.solve(second[:, :, :2], (48 - second[:, :, 2])[:, :, None])  # in the picture
    offset = (first[:, :, :2] @ centre)[:, :, 0] + first[:, :, 2] - 48
    scales = [np.hypot(matrix[:, 0, 0], matrix[:, 1, 0]) for matrix in (first, second)]
    return offset, scales[1] / scales[0]


if __name__ == "__main__":
    sys.exit(main())
