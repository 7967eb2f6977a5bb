"""Rules that hold for every file of the package: contracts 5 and 6, and lazy imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import espnet2_avsr_llm

PACKAGE = Path(espnet2_avsr_llm.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
FORBIDDEN_CALLS = {"print", "eval", "exec", "compile", "__import__"}
FORBIDDEN_METHODS = {"cuda", "half", "system", "popen"}
WORDS = {"trust_remote_code", "getoutput"}


def offences(tree):
    """(line, what) of everything that the contracts forbid."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func
            if isinstance(name, ast.Name) and name.id in FORBIDDEN_CALLS:
                yield node.lineno, f"{name.id}()"
            if isinstance(name, ast.Attribute) and name.attr in FORBIDDEN_METHODS:
                yield node.lineno, f".{name.attr}()"
            if isinstance(name, ast.Attribute) and ast.unparse(name) in ("torch.load", "pickle.load", "pickle.loads"):
                if {k.arg: ast.unparse(k.value) for k in node.keywords}.get("weights_only") != "True":
                    yield node.lineno, "unrestricted unpickling"
            for k in node.keywords:
                if k.arg in WORDS or (k.arg == "weights_only" and ast.unparse(k.value) != "True"):
                    yield node.lineno, k.arg
                if k.arg == "shell" and ast.unparse(k.value) != "False":
                    yield node.lineno, "shell=True"
                if k.arg == "device" and isinstance(k.value, ast.Constant) and str(k.value.value).startswith("cuda"):
                    yield node.lineno, "hard-coded device"
        if isinstance(node, ast.Attribute) and node.attr in WORDS:
            yield node.lineno, node.attr


@pytest.mark.parametrize(
    "code",
    ["print(1)", "eval('1')", "x.cuda()", "torch.load(p)", "torch.load(p, weights_only=False)", "f(p, trust_remote_code=True)"]
    + ["run(c, shell=True)", "os.system(c)", "torch.zeros(1, device='cuda')", "x.half()"],
)
def test_the_scan_sees(code):
    assert list(offences(ast.parse(code)))


def test_nothing_forbidden():
    found = [f"{f.relative_to(PACKAGE)}:{line}: {what}" for f in FILES for line, what in offences(ast.parse(f.read_text(encoding="utf-8")))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_size_and_docstrings(file):
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 500
    if not text.strip():
        return
    assert ast.get_docstring(tree), "the first line says what the module is"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"


def test_importing_every_module_asks_nothing_of_the_network():
    """Sockets are refused while every module of the package is imported (programs of bin/ included)."""
    names = [".".join(f.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__") for f in FILES]
    code = (
        "import socket, importlib\n"
        "def refuse(*a, **k): raise SystemExit(f'network: {a}')\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert out.returncode == 0, out.stderr


def test_files_without_torch():
    """Data preparation runs in many processes, and scoring anywhere: neither may import torch."""
    code = (
        "import sys\n"
        "import espnet2_avsr_llm.data.media, espnet2_avsr_llm.data.roi, espnet2_avsr_llm.data.noise, espnet2_avsr_llm.data.atomic\n"
        "import espnet2_avsr_llm.data.batching, espnet2_avsr_llm.config, espnet2_avsr_llm.registry, espnet2_avsr_llm.lengths\n"
        "import espnet2_avsr_llm.scoring.report, espnet2_avsr_llm.scoring.error_rate\n"
        "assert not [m for m in ('torch', 'transformers', 'espnet2') if m in sys.modules]"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert out.returncode == 0, out.stderr
