"""Transcribe media files with a trained model: a line `FILE<TAB>text` for each."""

from __future__ import annotations

import argparse
import logging
import sys


def get_parser() -> argparse.ArgumentParser:
    """Options; those of the model are named as in `Speech2Text`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE", help="video with sound, or one of both: mp4, mpg, webm, wav, ...")
    parser.add_argument("--asr_train_config", help="config.yaml of the experiment")
    parser.add_argument("--asr_model_file", help="checkpoint")
    parser.add_argument("--model_tag", help="instead of these: a packed model (folder, zip, or name on the hub)")
    parser.add_argument("--task", choices=("asr", "vsr", "avsr"), help="default: the trained one that reads the most")
    parser.add_argument("--beam_size", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ...")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Transcribe one file after the other; one that cannot be used is named, and the others go on (exit status 1)."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if bool(args.model_tag) == bool(args.asr_train_config and args.asr_model_file):
        parser.error("name one model: --asr_train_config and --asr_model_file, or --model_tag")
    logging.basicConfig(level="WARNING", format="%(levelname)s: %(message)s")
    from espnet2_avsr_llm.data.media import MediaError
    from espnet2_avsr_llm.data.roi import NoFaceError
    from espnet2_avsr_llm.inference.speech2text import Speech2Text

    options = {name: getattr(args, name) for name in ("task", "beam_size", "device")}
    if args.model_tag:
        speech2text = Speech2Text.from_pretrained(args.model_tag, **options)
    else:
        speech2text = Speech2Text(args.asr_train_config, args.asr_model_file, **options)
    failed = False
    for file in args.files:
        try:
            text, _, _, hypothesis = speech2text(speech=file, video=file)[0]
        except (MediaError, NoFaceError, ValueError) as e:
            logging.error("%s: %s", file, e)
            failed = True
            continue
        if hypothesis.note:
            logging.warning("%s: %s", file, hypothesis.note)
        sys.stdout.write(f"{file}\t{' '.join(text.split())}\n")  # a line, whatever the model writes
        sys.stdout.flush()
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
