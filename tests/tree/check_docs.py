#!/usr/bin/env python3
"""Checks the documents against the sources, one rule per run; prints what is wrong, one line each."""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

LINE_COLUMNS = 100  # tables cannot be broken, so their lines may be longer

COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", flags=re.S)
FUNCTION = re.compile(r"\bMPROC_API\b[^;{]*?\b(mproc_\w+)\s*\(")
STRUCT = re.compile(r"\btypedef struct (mproc_\w+) \{(.*?)\} \1;", flags=re.S)
ENUM = re.compile(r"\btypedef enum (mproc_\w+) \{(.*?)\} \1;", flags=re.S)
ERROR = re.compile(r'\bX\((E\w+), -\d+,')
MACRO = re.compile(r"^#define (MPROC_\w+)(?=[ \t]+[^\s\\])", flags=re.M)
VARIABLE = re.compile(r'\bmpx_setting\("(MPROC_\w+)"\)')
CRASH_POINT = re.compile(r'\bMPROC_CRASH_POINT\("([^"]+)"\)')
MODELLED_LAYERS = ("sync", "ipc", "pool")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.M | re.S)

# Of the headers, for compilers and not for readers.
INTERNAL_MACROS = {"MPROC_API", "MPROC_NODISCARD", "MPROC_ERROR_ENUM"}


def plain(page):
    """A page without what troff needs: words and examples as a reader sees them."""
    text = re.sub(r"^[.'].*?\\\".*$", "", page, flags=re.M)
    text = re.sub(r"\\f(\(..|\[\w*\]|.)", "", text)
    for escape, meaning in (("\\-", "-"), ("\\&", ""), ("\\(lq", '"'), ("\\(rq", '"'), ("\\e", "\\")):
        text = text.replace(escape, meaning)
    return text


def pages(root):
    for path in sorted((root / "docs/man").glob("*.[1-9]")):
        yield path, path.read_text()


def documents(root):
    yield root / "README.md"
    for folder in ("docs", "src", "tests"):
        yield from sorted((root / folder).rglob("*.md"))


def headers(root):
    for path in sorted((root / "include/mproc").glob("*.h")):
        text = path.read_text()
        yield path, text, COMMENT.sub("", text)


def fields(body):
    for declaration in body.split(";"):
        match = re.search(r"(\w+)\s*(\[\w+\])?\s*$", declaration.strip())
        if match:
            yield match[1]


def promised(root):
    """Yields (header, kind, name) of everything public."""
    for path, raw, text in headers(root):
        for name in FUNCTION.findall(text):
            yield path, "function", name
        for struct, body in STRUCT.findall(text):
            yield path, "type", struct
            for name in fields(body):
                yield path, f"field of {struct}", name
        for enum, body in ENUM.findall(text):
            for name in re.findall(r"\bMPROC_\w+", body):
                yield path, f"value of {enum}", name
        for name in ERROR.findall(raw):
            yield path, "code", f"MPROC_{name}"
        for name in MACRO.findall(text):
            if name not in INTERNAL_MACROS:
                yield path, "macro", name


def names_of(page):
    """The functions or the command that a page says, below NAME, that it describes."""
    match = re.search(r"^\.SH NAME\n(.*?)\\-", page, flags=re.M | re.S)
    return re.findall(r"\w+", match[1]) if match else []


def check_manual(root):
    """All that is public is in a manual page, and each function is in the NAME of just one."""
    words = {}
    described = {}
    for path, page in pages(root):
        words[path] = set(re.findall(r"\w+", plain(page)))
        if path.suffix == ".3":
            for name in names_of(page):
                described.setdefault(name, []).append(path.name)
    for path, kind, name in promised(root):
        if kind == "function":
            if len(described.get(name, [])) != 1:
                yield f"{path.name}: {name} is in the NAME of {described.get(name, 'no page')}"
            continue
        together = {name, kind.split()[-1]} if kind.startswith("field") else {name}
        if not any(together <= page for page in words.values()):
            yield f"{path.name}: {kind} {name} is in no manual page"
    functions = {name for _, kind, name in promised(root) if kind == "function"}
    for name, where in described.items():
        if name not in functions:
            yield f"{where[0]}: describes {name}, which no header declares"
    for path in sorted((root / "src").rglob("*.c")):
        for name in VARIABLE.findall(path.read_text()):
            if not any(name in page for page in words.values()):
                yield f"{path.name}: the variable {name} is in no manual page"


def check_pages(root):
    """Every page formats without a warning and has the version and the name of its file."""
    version = re.search(r'MPROC_VERSION_STRING "([^"]+)"',
                        (root / "include/mproc/version.h").read_text())[1]
    for path, page in pages(root):
        title = re.search(r'^\.TH (\S+) (\d) \S+ "mproc ([\d.]+)"', page, flags=re.M)
        if not title:
            yield f"{path.name}: no .TH with name, section, date and version"
        elif (f"{title[1]}.{title[2]}", title[3]) != (path.name, version):
            yield f"{path.name}: is called {title[1]}.{title[2]} of version {title[3]}, not {version}"
        if shutil.which("groff"):
            result = subprocess.run(["groff", "-ww", "-t", "-man", "-Tutf8", "-Z", str(path)],
                                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                    check=False)
            for line in result.stderr.splitlines():
                yield f"{path.name}: {line}"


def page_examples(page):
    """The examples of a page that are C."""
    for block in re.findall(r"^\.EX\n(.*?)^\.EE$", page, flags=re.M | re.S):
        if "#include" in block:
            yield plain(block)


def without_comment(program):
    return re.sub(r"\A/\*.*?\*/\n", "", program, flags=re.S)


def programs(root):
    """Yields (place, text) of every C program in pages and documents that is no example's text."""
    examples = {without_comment(path.read_text()) for path in (root / "examples").glob("*.c")}
    for path, page in pages(root):
        for number, program in enumerate(page_examples(page), 1):
            yield f"{path.name}: example {number}", program
    for path in documents(root):
        for language, block in FENCE.findall(path.read_text()):
            if language == "c" and block not in examples:
                line = path.read_text().split(block)[0].count("\n") + 1
                yield f"{path.relative_to(root)}:{line}", block


def check_programs(root):
    """Every C program in the documents is a file of examples/ or compiles."""
    compiler = os.environ.get("CC", "cc")
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "program.c"
        for place, program in programs(root):
            source.write_text(program)
            result = subprocess.run(
                [compiler, "-std=c11", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror",
                 "-I", str(root / "include"), str(source)],
                text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            if result.returncode != 0:
                yield f"{place} does not compile: {result.stdout.strip()}"


def check_links(root):
    """Every link inside the repository leads somewhere, and lines keep to their length."""
    for path in documents(root):
        text = path.read_text()
        name = path.relative_to(root)
        for target in LINK.findall(FENCE.sub("", text)):
            target, _, anchor = target.partition("#")
            if "://" in target:
                continue
            file = path.parent / target if target else path
            if not file.exists():
                yield f"{name}: links to {target}, which does not exist"
            elif anchor and anchor not in anchors(file):
                yield f"{name}: links to #{anchor}, which {target or 'it'} does not have"
        for number, line in enumerate(text.splitlines(), 1):
            if len(line) > LINE_COLUMNS and not line.startswith(("|", "    ")):
                yield f"{name}:{number}: {len(line)} columns, more than {LINE_COLUMNS}"


def anchors(path):
    for heading in re.findall(r"^#+ (.*)$", path.read_text(), flags=re.M):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def crash_points(root):
    """The layer of each crash point, by its name."""
    points = {}
    for path in sorted((root / "src").rglob("*.c")):
        layer = path.relative_to(root / "src").parts[0]
        for name in CRASH_POINT.findall(path.read_text()):
            points[name] = layer
    return points


def first_cells(section):
    """The names in the first column of a table."""
    for row in re.findall(r"^\|([^|]*)\|", section, flags=re.M):
        yield from re.findall(r"`([^`]+)`", row)


def check_crash_rows(root):
    """Every crash point has one row in the README of its layer, and every row has its point."""
    points = crash_points(root)
    rows = {}
    for path in sorted((root / "src").glob("*/README.md")):
        text = path.read_text()
        section = re.search(r"^## Crash windows$(.*?)(?=^## |\Z)", text, flags=re.M | re.S)
        for name in first_cells(section[1] if section else ""):
            if name in rows:
                yield f"{path.parent.name}/README.md: {name} has a second row"
            rows[name] = path.parent.name
    for name, layer in points.items():
        if rows.get(name) != layer:
            yield f"src/{layer}/README.md: no row for the crash point {name}"
    for name in rows.keys() - points.keys():
        yield f"src/{rows[name]}/README.md: a row for {name}, which is no crash point"


def check_model_steps(root):
    """Every crash point of sync, ipc and pool is a step of a model, or has a reason why it is none."""
    points = {name for name, layer in crash_points(root).items() if layer in MODELLED_LAYERS}
    nouns = "|".join(sorted({name.split(".")[0] for name in points}))
    steps = {}
    for path in sorted((root / "tests/models").glob("*.pml")):
        for comment in COMMENT.findall(path.read_text()):
            for name in re.findall(rf"\b(?:{nouns})\.(?!(?:[ch]|pml)\b)\w+(?:\.\w+)*", comment):
                steps[name] = path.name
    reasons = pathlib.Path(root / "tests/models/README.md").read_text()
    table = re.search(r"^\| point \|.*?(?=^$|\Z)", reasons, flags=re.M | re.S)
    left_out = set(first_cells(table[0] if table else ""))
    for name in sorted(points - steps.keys() - left_out):
        yield f"models/README.md: {name} is in no model, and there is no reason for that"
    for name in sorted(steps.keys() & left_out):
        yield f"models/README.md: {name} is in {steps[name]}"
    for name in sorted(left_out - points):
        yield f"models/README.md: {name} is no crash point of {' or '.join(MODELLED_LAYERS)}"
    for name in sorted(steps.keys() - points):
        yield f"{steps[name]}: {name} is no crash point"


RULES = {
    "manual": check_manual,
    "pages": check_pages,
    "programs": check_programs,
    "links": check_links,
    "crash_rows": check_crash_rows,
    "model_steps": check_model_steps,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rule", choices=RULES)
    parser.add_argument("root", type=pathlib.Path)
    arguments = parser.parse_args()
    problems = list(RULES[arguments.rule](arguments.root))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
