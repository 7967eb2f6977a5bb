"""How far apart the mouth crops of two dumps of the same clips are, such as those of the default landmarks and of mediapipe.

Run by hand; mediapipe 0.10.21 needs an environment of its own (numpy < 2):
  python -m espnet2_avsr_llm.bin.dump --in_dir DATA --out_dir litert
  python -m venv mp; mp/bin/pip install mediapipe==0.10.21 av==18.1.0 soundfile tqdm
  PYTHONPATH=. mp/bin/python -m espnet2_avsr_llm.bin.dump --in_dir DATA --out_dir mediapipe --landmarks mediapipe
  python tests/benchmarks/roi_agreement.py litert mediapipe
"""

import argparse
import sys
from pathlib import Path

import numpy as np


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="dump whose crop pixels are the unit")
    parser.add_argument("second", type=Path)
    return parser


def main():
    args = get_parser().parse_args()
    names = sorted(str(path.relative_to(args.first)) for path in args.first.glob("data/*/*.npz"))
    pairs = [[np.load(folder / name) for folder in (args.first, args.second)] for name in names]
    compared = [compare(*(clip["transforms"] for clip in pair)) for pair in pairs]
    offsets, scales = (np.concatenate(column) for column in zip(*compared))
    missed = np.sum([[(~clip["has_face"]).sum() for clip in pair] for pair in pairs], 0)
    distance = np.hypot(*offsets.T)
    of_clips = [np.hypot(*clip.mean(0)) for clip, _ in compared]
    lines = [
        f"{len(names)} clips, {len(scales)} frames with a crop in both, {missed[0]} and {missed[1]} frames without landmarks",
        f"centre: mean offset ({offsets[:, 0].mean():.2f}, {offsets[:, 1].mean():.2f}) crop pixels, mean distance {distance.mean():.2f}, "
        f"95 % below {np.quantile(distance, 0.95):.2f}, largest {distance.max():.2f}; largest mean offset of a clip {max(of_clips):.2f}",
        f"scale: ratio {scales.mean():.4f}, mean deviation {100 * np.abs(scales - 1).mean():.2f} %, "
        f"95 % below {100 * np.quantile(np.abs(scales - 1), 0.95):.2f} %, largest {100 * np.abs(scales - 1).max():.2f} %",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def compare(first, second):
    """Offset (T, 2) of the second's centre in pixels of the first's crops, and ratio (T,) of the scales; from transforms (T, 2, 3)."""
    known = ~np.isnan(first[:, 0, 0]) & ~np.isnan(second[:, 0, 0])
    first, second = first[known], second[known]
    centre = np.linalg.solve(second[:, :, :2], (48 - second[:, :, 2])[:, :, None])  # in the picture
    offset = (first[:, :, :2] @ centre)[:, :, 0] + first[:, :, 2] - 48
    scales = [np.hypot(matrix[:, 0, 0], matrix[:, 1, 0]) for matrix in (first, second)]
    return offset, scales[1] / scales[0]


if __name__ == "__main__":
    main()
