"""Pack a trained model with ESPnet's own packer, for espnet_model_zoo and the Hugging Face hub."""

import argparse
import logging
import zipfile
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence


def get_parser() -> argparse.ArgumentParser:
    """Options of this program; the first two are named as in ESPnet, whose unpacker passes them to `Speech2Text`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--asr_train_config", type=Path, required=True, help="config.yaml of the experiment")
    parser.add_argument("--asr_model_file", type=Path, required=True, help="checkpoint, such as valid.acc.ave.pth")
    parser.add_argument("--option", type=Path, action="append", default=[], help="further file or folder to pack")
    parser.add_argument("--outpath", type=Path, required=True, help="archive to write, a .zip")
    return parser


def strings(value: Any) -> Iterator[str]:
    """All strings inside nested dictionaries and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from strings(item)


def local_parts(config: Any) -> list[Path]:
    """Pretrained parts that a model's options name by a path in or below the working directory.

    Args:
        config: options by name (`llm_conf`, `video_frontend_conf`, ...); data and output paths are not among them.

    Returns:
        Existing files and folders. Hub ids do not exist as paths; parts elsewhere on this machine cannot be packed under a
        relative name and are named in a warning.
    """
    here = Path.cwd().resolve()
    parts = []
    for path in sorted({Path(value) for value in strings(config) if 0 < len(value) < 256}):
        if path == Path(".") or not path.exists():
            continue
        if path.resolve().is_relative_to(here) and not path.is_absolute() and ".." not in path.parts:
            parts.append(path)
        else:
            logging.warning("%s is outside %s: not packed, the model will need it where it is", path, here)
    return parts


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Write the archive; a killed run leaves none."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    import yaml
    from espnet2.main_funcs.pack_funcs import pack

    config = yaml.safe_load(args.asr_train_config.read_text(encoding="utf-8"))
    # the noise of the training data is no part of the model
    parts = local_parts({key: value for key, value in config.items() if key.endswith("_conf") and key != "augment_conf"})
    unfinished = args.outpath.with_name(f"part.{args.outpath.name}")
    pack(
        files={"asr_model_file": args.asr_model_file},
        yaml_files={"asr_train_config": args.asr_train_config},
        option=[*args.option, *parts],
        outpath=unfinished,
    )
    with zipfile.ZipFile(unfinished, "a") as archive:
        # ESPnet's unpacker rewrites a path of the config only if the archive has an entry of that name: give folders one
        for folder in filter(Path.is_dir, parts):
            archive.writestr(f"{folder}/", "")
    unfinished.replace(args.outpath)
    logging.info("packed %s", args.outpath)


if __name__ == "__main__":
    main()
