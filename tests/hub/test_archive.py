"""Packed models: what is refused before it is unpacked."""

import io
import tarfile
import zipfile

import pytest

from espnet2_avsr_llm.hub import archive
from espnet2_avsr_llm.hub.archive import check_archive
from espnet2_avsr_llm.hub.resolve import SourceError
from espnet2_avsr_llm.inference.speech2text import Speech2Text

META = b"yaml_files: {asr_train_config: ../escaped.yaml}\nfiles: {}\n"


def packed(path, members):
    """A zip or tar with members of these names and contents."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                file.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as file:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(params=["a.zip", "a.tgz"])
def path(request, tmp_path):
    return tmp_path / "in" / request.param


@pytest.fixture(autouse=True)
def folder(tmp_path):
    (tmp_path / "in").mkdir()


def test_a_packed_model_passes(path):
    check_archive(packed(path, {"meta.yaml": b"x: 1", "exp/model.pth": b"0" * 1000, "exp/a..b/c": b""}))


@pytest.mark.parametrize("name", ["../escaped.yaml", "exp/../../escaped.yaml", "/tmp/escaped.yaml", "..\\escaped.yaml", "C:\\escaped.yaml"])
def test_names_that_lead_out(path, tmp_path, name):
    packed(path, {"meta.yaml": META, name: b"a: 1"})
    for use in (check_archive, lambda p: Speech2Text.from_pretrained(str(p), cachedir=str(tmp_path / "cache" / "deep"))):
        with pytest.raises(SourceError, match="leads out of the folder"):
            use(path)
    assert not list(tmp_path.rglob("escaped.yaml"))


def test_links(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        link = tarfile.TarInfo("exp")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        file.addfile(link)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        info = zipfile.ZipInfo("exp")
        info.external_attr = 0o120777 << 16
        file.writestr(info, "/etc")
    for name in ("a.tar", "a.zip"):
        with pytest.raises(SourceError, match="'exp' is a link or a device"):
            check_archive(tmp_path / name)


def test_bombs(path):
    packed(path, {"zeros": b"\0" * 150 * 2**20})
    assert path.stat().st_size < 2**20
    with pytest.raises(SourceError, match="bytes come out of it"):
        check_archive(path)


def test_too_many_members(path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    with pytest.raises(SourceError, match="more than 3 files"):
        check_archive(packed(path, {str(i): b"" for i in range(4)}))


@pytest.mark.parametrize("size", [0, 10, 200])
def test_truncated(path, size):
    packed(path, {"meta.yaml": bytes(range(256)) * 20})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(SourceError, match="is truncated or no zip or tar file"):
        check_archive(path)
