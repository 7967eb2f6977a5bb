"""Foreign checkpoints: read without executing anything, in both formats; refused with a reason."""

import argparse
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from espnet2_avsr_llm.convert.torch_file import Stub, read_torch_file
from espnet2_avsr_llm.hub.resolve import SourceError

FORMATS = [{}, {"_use_new_zipfile_serialization": False}]
both_formats = pytest.mark.parametrize("format", FORMATS, ids=["zip", "legacy"])


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, file, function=Path.touch):
        self.file, self.function = file, function

    def __reduce__(self):
        return self.function, (self.file,)


def checkpoint():
    x = torch.arange(12.0).reshape(3, 4)
    return {"model": OrderedDict(a=x, t=x.T, b=torch.ones(2, dtype=torch.bfloat16), n=torch.tensor(3), p=torch.nn.Parameter(x[1]))}


@both_formats
def test_tensors_come_back(tmp_path, format):
    torch.save(checkpoint() | {"best": 0.5, "names": ["x", None], "args": argparse.Namespace(layers=2)}, tmp_path / "a.pt", **format)
    read = read_torch_file(tmp_path / "a.pt")
    for name, tensor in checkpoint()["model"].items():
        assert torch.equal(read["model"][name], tensor) and read["model"][name].dtype == tensor.dtype
    assert read["best"] == 0.5 and read["names"] == ["x", None]
    assert isinstance(read["args"], Stub) and read["args"].layers == 2 and not isinstance(read["args"], argparse.Namespace)


def test_objects_of_fairseq_become_stubs(golden):
    read = read_torch_file(Path(golden.HERE) / "avhubert_fairseq_layout_notrunk.pt")
    (dictionary,) = read["task_state"]["dictionaries"]
    assert isinstance(dictionary, Stub) and dictionary.bos_word == "<s>"
    assert read["cfg"]["model"]["encoder_layers"] == 2 and read["model"]["mask_emb"].shape == (104,)


@both_formats
@pytest.mark.parametrize("protocol", [2, 4])
def test_canary_never_runs(tmp_path, format, protocol):
    for i, function in enumerate([Path.touch, exec, eval, print]):
        what = tmp_path / "canary" if function is Path.touch else f"open({str(tmp_path / 'canary')!r}, 'w')"
        torch.save(checkpoint() | {"x": Canary(what, function)}, tmp_path / "a.pt", pickle_protocol=protocol, **format)
        with pytest.raises(SourceError, match=rf"a\.pt asks for (builtins\.)?(exec|eval|print|getattr|pathlib).*nothing of it was run"):
            read_torch_file(tmp_path / "a.pt")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_canary_in_a_bare_pickle(tmp_path, protocol):
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Canary("x", exec), protocol))
    with pytest.raises(SourceError, match=r"asks for builtins\.exec"):
        read_torch_file(tmp_path / "a.pt")


@both_formats
def test_truncated_anywhere(tmp_path, format):
    torch.save(checkpoint(), tmp_path / "whole.pt", **format)
    whole = (tmp_path / "whole.pt").read_bytes()
    for size in [0, 1, 10, 100, len(whole) // 2, len(whole) - 1]:
        (tmp_path / "a.pt").write_bytes(whole[:size])
        with pytest.raises(SourceError, match=rf"a\.pt \({size} bytes\) is truncated or no PyTorch checkpoint"):
            read_torch_file(tmp_path / "a.pt")


def rewritten(source, target, change=lambda name, data: data, **options):
    """A zip with every member passed through ``change``."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **options) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


def test_compressed_members_are_refused(tmp_path):
    torch.save(checkpoint(), tmp_path / "whole.pt")
    rewritten(tmp_path / "whole.pt", tmp_path / "a.pt", compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(SourceError, match="is compressed, which torch.save never does"):
        read_torch_file(tmp_path / "a.pt")


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    torch.save({"a": torch.zeros(200, 200)}, tmp_path / "whole.pt")
    rewritten(tmp_path / "whole.pt", tmp_path / "a.pt", lambda _, data: data.replace(b"K\xc8K\xc8", b"K\xffK\xff"))  # 200 becomes 255
    with pytest.raises(SourceError, match="no PyTorch checkpoint"):
        read_torch_file(tmp_path / "a.pt")


@pytest.mark.parametrize("opcode", [b"\x8d" + struct.pack("<Q", 1 << 60), b"X" + struct.pack("<I", 0xFFFFFFFF)], ids=["8 bytes", "4 bytes"])
def test_a_string_longer_than_the_file_is_refused(tmp_path, opcode):
    (tmp_path / "a.pt").write_bytes(b"\x80\x02" + opcode + b"x")
    with pytest.raises(SourceError, match="is truncated or no PyTorch checkpoint"):
        read_torch_file(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["../escaped", "a/../../escaped", "/tmp/escaped"])
def test_members_that_lead_out_of_the_archive_are_refused(tmp_path, name):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(SourceError, match=rf"member '{name}' leads out of the archive"):
        read_torch_file(tmp_path / "a.pt")
    assert not (tmp_path.parent / "escaped").exists() and not Path("/tmp/escaped").exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SourceError, match="No file .*absent.pt"):
        read_torch_file(tmp_path / "absent.pt")
