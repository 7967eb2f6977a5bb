"""Run any program of this package: `avsr-llm NAME [OPTIONS]`."""

import ast
import importlib
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Optional, Sequence

NOT_PROGRAMS = {"__init__", "cli"}


def programs() -> dict[str, Path]:
    """Source file of every program of `bin/`, by name."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return {file.stem: file for file in files if file.stem not in NOT_PROGRAMS}


def summary(file: Path) -> str:
    """First line of a module's docstring, read without importing the module."""
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    return doc.splitlines()[0] if doc else ""


def usage() -> str:
    """Help text: the programs and what each does."""
    found = programs()
    width = max(map(len, found))
    lines = [f"  {name:<{width}}  {summary(file)}" for name, file in found.items()]
    return "\n".join(["usage: avsr-llm NAME [OPTIONS]   (avsr-llm NAME --help for the options of one)", "", *lines, ""])


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Import the named program only, and run it with the remaining arguments."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(usage())
        return
    name = args[0].replace("-", "_")
    if name not in programs():
        close = get_close_matches(name, programs(), 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        sys.exit(f"avsr-llm: no program {args[0]!r}.{hint} `avsr-llm --help` lists them.")
    # programs that start worker processes or print their command line look at sys.argv
    sys.argv = [f"avsr-llm {name}", *args[1:]]
    sys.exit(importlib.import_module(f"espnet2_avsr_llm.bin.{name}").main(args[1:]))


if __name__ == "__main__":
    main()
