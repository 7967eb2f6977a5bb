"""What an analysis leaves behind, and the page that shows all analyses of an experiment.

An analysis writes into a folder of its own: ``results.json`` (every number), figures as PNG, and ``section.md`` (heading, tables, figures
with captions). ``RESULTS.md`` takes the sections without their figures; ``index.html`` takes them whole. The page needs no server.
"""

from __future__ import annotations

import html
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

from espnet2_avsr_llm.data.atomic import atomic_path, write_text

SECTION, NUMBERS, PAGE = "section.md", "results.json", "index.html"
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)]*)\)")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1, h2 { line-height: 1.2; } h2 { border-top: 1px solid #ccc; padding-top: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.92em; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: 0.2rem 0.7rem; text-align: right; } th:first-child, td:first-child { text-align: left; }
figure { margin: 1.5rem 0; } img { max-width: 100%; } figcaption { color: #555; max-width: 60rem; }
pre { background: #f6f6f6; padding: 0.8rem; overflow: auto; max-height: 30rem; font-size: 12px; } summary { cursor: pointer; }
"""


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    return "\n".join(f"|{'|'.join(map(str, row))}|" for row in [head, ["---"] * len(head), *rows])


def plain(text: str) -> str:
    """Text of data (token names, utterances) that neither Markdown nor HTML takes for its own signs."""
    return "".join(f"&#{ord(c)};" if c in "<>&|*`[]\\#!~" else c for c in text)


def write_analysis(folder: Path, title: str, text: Sequence[str], figures: Mapping[str, tuple[str, Callable]], numbers: Mapping[str, Any]) -> None:
    """Write the files of one analysis.

    Args:
        folder: where.
        title: heading.
        text: paragraphs and tables, in Markdown.
        figures: by name, the caption and a function that draws and returns a matplotlib figure.
        numbers: what ``results.json`` holds.
    """
    import matplotlib

    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True}):
        for name, (_, draw) in figures.items():
            png = io.BytesIO()
            draw().savefig(png, format="png", dpi=110)
            with atomic_path(folder / f"{name}.png") as temporary:
                temporary.write_bytes(png.getvalue())
    write_text(folder / NUMBERS, json.dumps(numbers, indent=1, allow_nan=False) + "\n")
    images = [f"![{caption}]({name}.png)" for name, (caption, _) in figures.items()]
    write_text(folder / SECTION, "\n\n".join([f"### {title}", *text, *images]) + "\n")  # last: where it is found, the others are complete


def sections(exp: Path) -> list[Path]:
    """The ``section.md`` of every analysis of an experiment."""
    return sorted((exp / "analysis").glob(f"**/{SECTION}"))


def section_text(section: Path) -> str:
    """A section without its figures."""
    paragraphs = section.read_text(encoding="utf-8").strip().split("\n\n")
    return "\n\n".join(p for p in paragraphs if not IMAGE.fullmatch(p))


def write_page(exp: Path, out: Path | None = None) -> Path:
    """Write the page of an experiment.

    Args:
        exp: experiment folder.
        out: where the page goes, with a copy of figures and numbers; None: into the experiment's ``analysis`` folder, where they are.

    Returns:
        The page.

    Raises:
        FileNotFoundError: no analysis there.
    """
    found, home = sections(exp), exp / "analysis"
    if not found:
        raise FileNotFoundError(f"No {SECTION} below {home}: run stage 16, `avsr-llm shap` or `avsr-llm sinks` first.")
    blocks = []
    for section in found:
        name = section.parent.relative_to(home)
        if out is not None:
            (out / name).mkdir(parents=True, exist_ok=True)
            for file in [section.parent / NUMBERS, *section.parent.glob("*.png")]:
                shutil.copyfile(file, out / name / file.name)
        blocks.append(_section_html(section, name))
    page = (out or home) / PAGE
    title = html.escape(f"Analysis of {exp.name}")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title><style>{STYLE}</style>'
    write_text(page, f"<!DOCTYPE html>\n<html lang=en>{head}\n<h1>{title}</h1>\n" + "\n".join(blocks) + "\n</html>\n")
    return page


def _section_html(section: Path, name: Path) -> str:
    from markdown import markdown

    def figure(match: re.Match) -> str:
        caption, file = html.escape(match[1]), f"{name.as_posix()}/{match[2]}"
        return f'<figure><img src="{file}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'

    body = IMAGE.sub(figure, section.read_text(encoding="utf-8").replace("### ", "## ", 1))
    numbers = (section.parent / NUMBERS).read_text(encoding="utf-8")
    whole = f"<pre>{html.escape(numbers)}</pre>" if len(numbers) < 200_000 else ""
    link = f'<a href="{name.as_posix()}/{NUMBERS}">{NUMBERS}</a>'
    return markdown(body, extensions=["tables"]) + f"\n<details><summary>The numbers behind: {link}</summary>{whole}</details>"
