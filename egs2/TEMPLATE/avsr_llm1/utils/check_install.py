#!/usr/bin/env python3
"""Say whether the running Python has a package and what its setup.py asks for; exit status 1 if not.

usage: check_install.py SETUP_PY [EXTRA ...]
"""

import ast
import sys
from importlib.metadata import PackageNotFoundError, version

try:
    from packaging.requirements import Requirement
except ImportError:  # an environment that holds nothing yet
    from pip._vendor.packaging.requirements import Requirement

KEYWORDS = ("name", "install_requires", "extras_require")


def requirements(setup_py, extras):
    """The package of a setup.py itself, what it requires, and what its extras require."""
    with open(setup_py, encoding="utf-8") as source:
        call = next(n for n in ast.walk(ast.parse(source.read())) if getattr(getattr(n, "func", None), "id", "") == "setup")
    given = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg in KEYWORDS}
    return [given["name"], *given["install_requires"], *(line for extra in extras for line in given["extras_require"][extra])]


def unmet(line):
    """What is wrong with one requirement here, or None."""
    wanted = Requirement(line)
    if wanted.marker and not wanted.marker.evaluate():
        return None
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return f"{wanted.name} is not installed"
    return None if wanted.specifier.contains(found, prereleases=True) else f"{wanted.name} is {found}, wanted {wanted.specifier}"


if __name__ == "__main__":
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        sys.exit(f"Python {sys.version.split()[0]} is outside 3.10 to 3.12")
    missing = [problem for line in requirements(sys.argv[1], sys.argv[2:]) if (problem := unmet(line))]
    if missing:
        sys.exit("; ".join(missing))
