"""A page for every update rule, made while mkdocs builds: formula, arguments, state, picture, golden traces.

What a page says is read from the code and measured on it, by `rule_facts.py`, and from the errors of the golden traces,
written by `tests/reference/table.py`. The order of the families is that of `families.toml`.
"""

import html
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

HERE = Path(__file__).parent
CACHE = HERE / ".cache" / "rules"
ERRORS = HERE.parent / "tests" / "reference" / "errors.json"
INDEX = "rules/index.md"

# The table of arguments is ours: it says of each what the default is first, and resolves what refers to elsewhere.
_OPTIONS = (
    "{heading: Signature, toc_label: Signature, heading_level: 3, show_source: false, show_docstring_parameters: false}"
)
# A formula wider than the column is scrolled, and its lines stand below each other.
_STYLE = """.md-typeset math[display="block"] { max-width: 100%; overflow-x: auto; }
.md-typeset mtd[columnalign="left"] { text-align: left; }
.md-typeset mtd[columnalign="right"] { text-align: right; }
"""

_WHOSE_OTHERS = re.compile(r"<p>Arguments that are not described here\b.*?</p>", re.DOTALL)

facts: dict[str, Any] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Measures the rules, and gives each its place in the navigation, below the index of rules."""
    done = subprocess.run(
        [sys.executable, str(HERE / "rule_facts.py"), str(CACHE)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PluginError(f"docs/rule_facts.py failed:\n{done.stderr[-3000:]}")
    facts.clear()
    facts.update(json.loads((CACHE / "facts.json").read_text(encoding="utf-8")))
    for name, rule in facts["rules"].items():
        for what, problem in rule["problems"].items():
            # Not through mkdocs' log, where --strict would make an error of it.
            print(f"rule_pages: {name}: no {what}: {problem}", file=sys.stderr)
    if "Other" in facts["families"]:
        print(f"rule_pages: no place in families.toml: {', '.join(facts['families']['Other'])}", file=sys.stderr)
    _fill(config.nav)
    config.extra_css.append("stylesheets/rules.css")
    return config


def _fill(nav: Any) -> None:
    """Turns the entry of the index into a section: the index, then a section for each family."""
    for entry in nav:
        for title, value in entry.items() if isinstance(entry, dict) else ():
            if value == INDEX:
                families = [
                    {family: [{name: f"rules/{name}.md"} for name in names]}
                    for family, names in facts["families"].items()
                ]
                parts = [{"Parts of rules": "rules/parts.md"}] if facts["parts"] else []
                entry[title] = [{"All rules": INDEX}, *families, *parts]
            elif isinstance(value, list):
                _fill(value)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages and the pictures."""
    traces: dict[str, list[dict[str, Any]]] = {}
    for line in json.loads(ERRORS.read_text(encoding="utf-8")) if ERRORS.exists() else []:
        traces.setdefault(line["rule"], []).append(line)
    pages = {INDEX: index_page(traces)}
    if facts["parts"]:
        pages["rules/parts.md"] = parts_page()
    for name, rule in facts["rules"].items():
        pages[f"rules/{name}.md"] = rule_page(rule, traces.get(name, []))
        if "picture" not in rule["problems"]:
            for picture in (f"{name}.svg", f"{name}.small.svg"):
                files.append(File.generated(config, f"rules/images/{picture}", abs_src_path=str(CACHE / picture)))
    pages["stylesheets/rules.css"] = _STYLE
    for place, text in pages.items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_content(content: str, page: Page, **_: Any) -> str:
    """Makes a link of every `jgd.<rule>` in the text, wherever it stands.

    On a rule's page the sentence that says whose its other arguments are goes: the table there has them all.
    """
    if page.url.startswith("rules/"):
        content = _WHOSE_OTHERS.sub("", content)

    def link(match: re.Match[str]) -> str:
        name = match["name"]
        target = f"rules/{name}/"
        if name is None or name not in facts["rules"] or target == page.url:
            return match[0]
        return f'<a href="{"../" * page.url.count("/")}{target}">{match[0]}</a>'

    return re.sub(
        r"<(?P<tag>a|h1|h2|pre)\b.*?</(?P=tag)>|<code>jgd\.(?P<name>\w+)</code>", link, content, flags=re.DOTALL
    )


def index_page(traces: dict[str, Any]) -> str:
    """All rules, by family."""
    rules, when = facts["rules"], facts["when"]
    wrappers, estimators = sum(rule["inside"] is not None for rule in rules.values()), len(facts["estimators"])
    lines = [
        "# Update rules",
        "",
        f"{len(rules) - wrappers - estimators} update rules, {wrappers} wrappers around any of them, and {estimators}"
        " estimators of curvature that Sophia reads. Each is a factory that returns a"
        " [`jgd.Optimizer`](../api/core.md); every number may also be a scalar array or a schedule.",
        "",
        "The picture is its path down a valley with curvatures 1 and 100, 300 steps at the best of 16 learning rates."
        " The rate is where its authors or common recipes begin. State is the count of numbers kept for each parameter,"
        " in a matrix of 1024 by 4096; traces is the number of [golden traces](../golden-traces.md), runs of the"
        " author's code that the rule follows.",
    ]
    for family, names in facts["families"].items():
        lines += ["", f"## {family}", "", "| | Rule | When to use it | Typical rate | State | Traces |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        for name in names:
            kept = _count(rules[name].get("per_parameter", {}).get("large matrix"))
            picture = "" if "picture" in rules[name]["problems"] else f"![](images/{name}.small.svg){{ width=72 }}"
            use, rate = (_cell(when[what].get(name, "")) for what in ("use", "rate"))
            count = len(traces.get(name, []))
            lines.append(f"| {picture} | [`{name}`]({name}.md) | {use} | {rate} | {kept} | {count} |")
    missing = [name for name in sorted(rules) if "picture" in rules[name]["problems"]]
    if missing:
        lines += ["", "Without a picture: " + ", ".join(f"[`{name}`]({name}.md)" for name in missing) + "."]
    return "\n".join(lines) + "\n"


def parts_page() -> str:
    """What rules are made of and is public as well."""
    options = "options: {show_root_heading: false, show_root_toc_entry: false, members: [%s], heading_level: 2}"
    blocks = [f"::: {module}\n    {options % ', '.join(names)}" for module, names in facts["parts"].items()]
    return "# Parts of rules\n\nFunctions that update rules share, for those who write their own.\n\n" + "\n\n".join(
        blocks
    )


def rule_page(rule: dict[str, Any], traces: list[dict[str, Any]]) -> str:
    """The page of one rule."""
    lead, formula, references = _split(rule["module_doc"])
    name, family = rule["name"], next(f for f, names in facts["families"].items() if rule["name"] in names)
    siblings = [other for other, more in facts["rules"].items() if more["module"] == rule["module"] and other != name]
    beside = f" In the same file: {', '.join(f'`jgd.{other}`' for other in sorted(siblings))}." if siblings else ""
    return "\n\n".join(
        part
        for part in (
            f"# {name}",
            lead,
            f"[{family}](index.md#{_slug(family)}).{beside}",
            f"## Formula\n\n{formula}" if formula else "",
            "## Path",
            _path(rule),
            "## Factory",
            f"::: {rule['public']}\n    options: {_OPTIONS}",
            "### Arguments",
            _arguments(rule),
            "## State",
            _state(rule),
            "## Golden traces",
            _traces(traces),
            f"## References\n\n{references}" if references else "",
            "## Source",
            _source(rule),
        )
        if part
    )


def _split(module_doc: str) -> tuple[str, str, str]:
    """First paragraph, formula with its notes, and references of a module's docstring."""
    body, _, references = module_doc.partition("\nReferences:\n")
    lead, _, formula = body.partition("\n\n")
    return lead, formula.strip(), textwrap.dedent(references).strip()


def _path(rule: dict[str, Any]) -> str:
    if "picture" in rule["problems"]:
        return f"No picture: {html.escape(rule['problems']['picture'].rstrip('.'))}."
    caption = [
        "300 steps down a valley with curvatures 1 and 100, and down Rosenbrock's function, from the circle; the star"
        " is the minimum, and there is a dot every ten steps. The colors are the value, in half decades."
    ]
    (valley_rate, valley), (rosenbrock_rate, rosenbrock) = rule["ends"]["valley"], rule["ends"]["rosenbrock"]
    if rule["swept"]:
        caption.append(
            f"The learning rate, {valley_rate:g} and {rosenbrock_rate:g}, is the best of 1, 2 and 5 times the powers of"
            " ten from 1e-4 to 10: the largest value over the last ten steps is the smallest (values below 1e-4 count"
            " as alike, and the smaller rate is taken), and no value is above five times the first."
        )
    rest = "All else has its default" if rule["swept"] else "All arguments have their defaults"
    caption.append(f"{rest}. It ends at {valley:.1e} and {rosenbrock:.1e}.")
    if rule["as_matrix"]:
        caption.append("The two coordinates are one matrix of one row, since the rule treats matrices in its own way.")
    if rule["inside"]:
        caption.append(f"It is wrapped around `jgd.{rule['inside']}`, at the same learning rate.")
    alt = f"The path of {rule['name']} on two surfaces"
    return f"![{alt}](images/{rule['name']}.svg)\n\n{' '.join(caption)}"


def _arguments(rule: dict[str, Any]) -> str:
    lines = ["| Argument | Default | |", "| --- | --- | --- |"]
    for name, default, meaning, keyword_only in rule["arguments"]:
        shown = "required" if default is None else f"`{default}`"
        only = " (keyword only)" if keyword_only else ""
        lines.append(f"| `{name}`{only} | {_cell(shown)} | {_cell(meaning)} |")
    return "\n".join(lines)


def _state(rule: dict[str, Any]) -> str:
    if "slots" in rule["problems"]:
        return f"Not measured: `{rule['problems']['slots']}`"
    kinds = list(rule["slots"])
    inside = rule["inside"]
    around = f" Those of `jgd.{inside}`, which it is wrapped around here, are among them." if inside else ""
    lines = [
        "What `init` makes for one parameter of each shape, beside the step counter and the hyperparameters." + around,
        "",
        "| Slot | " + " | ".join(f"{kind} {_shape(kind_shape)}" for kind, kind_shape in facts_shapes(rule)) + " |",
        "| --- |" + " --- |" * len(kinds),
    ]
    slots = {kind: {slot: (shape, dtype) for slot, shape, dtype in rule["slots"][kind]} for kind in kinds}
    names = list(dict.fromkeys(slot for by_slot in slots.values() for slot in by_slot))
    roots = list(dict.fromkeys(slot.split(".")[0] for slot in names))
    for slot in sorted(names, key=lambda slot: roots.index(slot.split(".")[0])):
        cells = [_slot(*by_slot[slot]) if slot in by_slot else "none" for by_slot in slots.values()]
        lines.append(f"| `{slot}` | " + " | ".join(cells) + " |")
    total = " | ".join(_count(rule["per_parameter"][kind]) for kind in kinds)
    return "\n".join([*lines, f"| **numbers a parameter** | {total} |"])


def facts_shapes(rule: dict[str, Any]) -> list[tuple[str, list[int]]]:
    """Kinds of parameters and their shapes."""
    return [(kind, facts["shapes"][kind]) for kind in rule["slots"]]


def _slot(shape: list[int], dtype: str) -> str:
    return _shape(shape) + ("" if dtype == "float32" else f" {dtype}")


def _shape(shape: list[int]) -> str:
    return " x ".join(map(str, shape)) if shape else "one number"


def _count(kept: float | None) -> str:
    return "unknown" if kept is None else f"{kept:.3g}" if kept >= 0.01 or kept == 0 else "<0.01"


def _traces(traces: list[dict[str, Any]]) -> str:
    if not traces:
        return "No golden trace yet."
    lines = [
        "A hundred steps of a seeded problem, here and in the reference; the error is relative. The whole table is in"
        " [golden traces](../golden-traces.md).",
        "",
        "| Trace | Reference | Version | Largest error | Tolerance |",
        "| --- | --- | --- | --- | --- |",
    ]
    for line in traces:
        version = f"{line['package']} {line['version']}"
        error = f"{line['error']:.1e}" if line["error"] else "0"
        lines.append(f"| {line['trace']} | `{line['reference']}` | {version} | {error} | {line['tolerance']:g} |")
    return "\n".join(lines)


def _source(rule: dict[str, Any]) -> str:
    code = highlight(rule["source"], PythonLexer(), HtmlFormatter(nowrap=True))
    file = rule["module"].replace(".", "/") + ".py"
    # Kept out of the search: every word of it would be found beside the page's own.
    return (
        f"<details data-search-exclude><summary>{html.escape(file)}</summary>"
        f'<div class="highlight"><pre><code>{code}</code></pre></div></details>'
    )


def _cell(text: str) -> str:
    """Text for the cell of a table, where a bar would end the cell."""
    return re.sub(r"(`[^`]*`)|\|", lambda match: match[1] or "&#124;", text)


def _slug(title: str) -> str:
    return re.sub(r"[^\w]+", "-", title.lower()).strip("-")
