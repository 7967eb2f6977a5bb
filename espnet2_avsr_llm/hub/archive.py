"""Look into a packed model before anything of it is unpacked."""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from espnet2_avsr_llm.hub.resolve import SourceError

MAX_MEMBERS = 10_000
MAX_BYTES = 200 * 2**30
MAX_RATIO = 100  # unpacked over packed; weights hardly shrink


def check_archive(path: Path | str) -> None:
    """Refuse an archive that could write outside its folder, or fill the disk.

    Args:
        path: zip or tar.

    Raises:
        SourceError: it is no such archive, a member is no plain file or leads out of the folder, or there is too much in it.
    """
    count = total = 0
    limit = min(MAX_BYTES, MAX_RATIO * max(Path(path).stat().st_size, 2**20))
    try:
        for name, size, plain in _members(path):
            count, total = count + 1, total + size
            if name.startswith(("/", "\\")) or ":" in name[:2] or ".." in name.replace("\\", "/").split("/"):
                raise SourceError(f"{path}: its member {name!r} leads out of the folder it is unpacked into")
            if not plain:
                raise SourceError(f"{path}: its member {name!r} is a link or a device; a packed model has files only")
            if count > MAX_MEMBERS or total > limit:
                raise SourceError(f"{path}: more than {MAX_MEMBERS} files or {limit:,} bytes come out of it; no packed model is like that")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as e:
        raise SourceError(f"{path} is truncated or no zip or tar file: {e}") from e


def _members(path: Path | str) -> Iterator[tuple[str, int, bool]]:
    """Name, unpacked size, and whether it is a plain file or folder, of each member."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                yield info.filename, info.file_size, not stat.S_ISLNK(info.external_attr >> 16)
        return
    with tarfile.open(path) as archive:
        for member in archive:
            yield member.name, member.size, member.isfile() or member.isdir()
