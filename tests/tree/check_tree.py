#!/usr/bin/env python3
"""Checks the shape of the source tree, one rule per run; prints what breaks it, one line each."""

import argparse
import pathlib
import re
import subprocess
import sys

LAYERS = ["base", "os", "heap", "sync", "ipc", "process", "pool", "advise"]
PUBLIC_ONLY = ["cli", "examples", "bench"]

FILE_LINES = 800
LINE_COLUMNS = 100
FUNCTION_LINES = 70

SYSTEM_MACROS = re.compile(
    r"\b(__linux__|__linux|linux|__gnu_linux__|__unix__|__unix|unix|__APPLE__|__MACH__|_WIN32|"
    r"_WIN64|WIN32|__CYGWIN__|__MINGW32__|__MINGW64__|__ANDROID__|__\w+BSD__|__sun)\b")
POSIX_HEADER = re.compile(
    r"(sys|linux|asm|arpa|netinet|net)/|"
    r"(aio|cpio|dirent|dlfcn|elf|fcntl|fnmatch|ftw|glob|grp|iconv|langinfo|libgen|link|mqueue|"
    r"ndbm|netdb|nl_types|poll|pthread|pwd|regex|sched|search|semaphore|signal|spawn|strings|"
    r"syslog|tar|termios|ucontext|unistd|utime|wordexp)\.h$")

# Files above src/os that include such a header all the same: {path: (header, reason)}.
POSIX_EXCEPTIONS = {}

COMMENT_OR_LITERAL = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(\\.|[^"\\\n])*"|'(\\.|[^'\\\n])*'""", flags=re.S)
DIRECTIVE = re.compile(r"^[ \t]*#(\\\n|[^\n])*", flags=re.M)
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
CRASH_POINT = re.compile(r'\bMPROC_CRASH_POINT\("([^"]+)"\)')
DECLARATION = re.compile(r"\bMPROC_API\b[^;{]*?\b(mproc_\w+)\s*\(")


def files_below(root, folders, suffixes):
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in suffixes and path.is_file():
                yield path.relative_to(root), path.read_text()


def sources(root, *folders):
    return files_below(root, folders, {".c", ".h"})


def includes(text):
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match[1] == '"', match[2]


def check_layers(root):
    """Includes point only downward, and programs use the public headers only."""
    for path, text in sources(root, "src"):
        if len(path.parts) < 3:
            yield f"{path}: belongs to no layer"
            continue
        layer = path.parts[1]
        for number, local, name in includes(text):
            target = name.split("/")[0]
            if not local or target not in LAYERS:
                continue
            if LAYERS.index(target) > LAYERS.index(layer):
                yield f"{path}:{number}: {layer} includes {name}, from a higher layer"
            elif target == "os" != layer and name.count("/") > 1:
                yield f"{path}:{number}: {name} belongs to one port: use os/os.h"

    bench_list = root / "bench/CMakeLists.txt"
    internal = set(re.findall(r"mproc_add_bench\(\s*(\w+)\s[^)]*\bINTERNAL\b",
                              bench_list.read_text() if bench_list.exists() else ""))
    for path, text in sources(root, *PUBLIC_ONLY):
        if path.parts[0] == "bench" and path.stem in internal:
            continue
        for number, local, name in includes(text):
            if local and (".." in name or name.split("/")[0] in LAYERS):
                yield f"{path}:{number}: {name} is not a public header"


def check_systems(root):
    """Only src/os and version.h ask which operating system this is."""
    for path, text in sources(root, "src", "include", *PUBLIC_ONLY):
        if path.parts[:2] == ("src", "os") or path.name == "version.h":
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if re.match(r"\s*#\s*(if|elif)", line) and SYSTEM_MACROS.search(line):
                yield f"{path}:{number}: a conditional on the operating system: {line.strip()}"


def check_posix(root):
    """In src, only os includes a POSIX header."""
    for path, text in sources(root, "src"):
        if path.parts[1] == "os":
            continue
        allowed = POSIX_EXCEPTIONS.get(str(path), ("", ""))[0]
        for number, local, name in includes(text):
            if not local and POSIX_HEADER.match(name) and name != allowed:
                yield f"{path}:{number}: <{name}> outside src/os"


def blank(match):
    return re.sub(r"[^\n]", " ", match[0])


def functions(text):
    """Yields (line, name, number of lines) of each function, from its signature to its brace."""
    text = COMMENT_OR_LITERAL.sub(blank, text)
    text = DIRECTIVE.sub(blank, text)
    text = re.sub(r"\bextern\s+\{", blank, text)
    depth, head = 0, 0
    name = start = None
    for place, character in enumerate(text):
        if character == "{":
            before = text[head:place].strip()
            if depth == 0 and before.endswith(")"):
                start = text.index(before, head)
                name = re.search(r"(\w+)\s*\(", before)[1]
            depth += 1
        elif character == "}" and depth > 0:
            depth -= 1
            if depth == 0 and start is not None:
                line = text.count("\n", 0, start) + 1
                yield line, name, text.count("\n", start, place) + 1
                start = None
        if depth == 0 and character in ";}":
            head = place + 1


def check_sizes(root):
    """Files, lines and functions keep to their limits."""
    for path, text in sources(root, "src", "include", "tests", *PUBLIC_ONLY):
        lines = text.splitlines()
        if len(lines) > FILE_LINES:
            yield f"{path}: {len(lines)} lines, more than {FILE_LINES}"
        for number, line in enumerate(lines, 1):
            if len(line) > LINE_COLUMNS:
                yield f"{path}:{number}: {len(line)} columns, more than {LINE_COLUMNS}"
        for number, name, count in functions(text):
            if count > FUNCTION_LINES:
                yield f"{path}:{number}: {name} has {count} lines, more than {FUNCTION_LINES}"


def check_format(root):
    """clang-format would change nothing."""
    paths = [str(path) for path, _ in sources(root, "src", "include", "tests", *PUBLIC_ONLY)]
    result = subprocess.run(["clang-format", "--dry-run", "-Werror", *paths], cwd=root, text=True,
                            stderr=subprocess.PIPE, check=False)
    places = re.findall(r"^(\S+:\d+):\d+: error:", result.stderr, flags=re.M)
    for place in dict.fromkeys(places):
        yield f"{place}: not laid out by ./dev format"
    if result.returncode != 0 and not places:
        yield result.stderr


def defined_symbols(path, *options):
    output = subprocess.run(["nm", "--defined-only", *options, str(path)], text=True, check=True,
                            stdout=subprocess.PIPE).stdout
    return {line.split()[2] for line in output.splitlines() if len(line.split()) == 3}


def check_symbols(root, shared, static):
    """libmproc.so exports what the headers declare; libmproc.a adds only mpx_ names."""
    exported = defined_symbols(shared, "-D")
    declared = set()
    for _, text in sources(root, "include"):
        declared |= set(DECLARATION.findall(text))
    for name in sorted(exported - declared):
        yield f"{shared.name}: exports {name}, which no public header declares"
    for name in sorted(declared - exported):
        yield f"{shared.name}: does not export {name}"
    for name in sorted(defined_symbols(static, "-g")):
        if not re.match(r"(mproc|mpx)_", name):
            yield f"{static.name}: defines the global name {name}"


def check_crash_points(root):
    """Every crash point is named by a test, once in the sources."""
    points = {}
    for path, text in sources(root, "src"):
        for number, line in enumerate(text.splitlines(), 1):
            for name in CRASH_POINT.findall(line):
                if name in points:
                    yield f"{path}:{number}: crash point {name} is also at {points[name]}"
                points[name] = f"{path}:{number}"
    tested = set()
    for _, text in sources(root, "tests/crash"):
        tested |= set(re.findall(r'"([^"\n]*)"', text))
    tested = {name.split(":")[0] for name in tested}
    for name, place in points.items():
        if name not in tested:
            yield f"{place}: no test in tests/crash dies at {name}"


def check_version(root):
    """CMakeLists.txt and version.h name the same version."""
    header = (root / "include/mproc/version.h").read_text()
    parts = [re.search(rf"MPROC_VERSION_{part} (\d+)", header)[1]
             for part in ("MAJOR", "MINOR", "PATCH")]
    text = re.search(r'MPROC_VERSION_STRING "([^"]+)"', header)[1]
    build = re.search(r"project\(mproc VERSION ([\d.]+)", (root / "CMakeLists.txt").read_text())[1]
    if not ".".join(parts) == text == build:
        yield f"version.h: {'.'.join(parts)} and \"{text}\"; CMakeLists.txt: {build}"


RULES = {
    "layers": check_layers,
    "systems": check_systems,
    "posix": check_posix,
    "sizes": check_sizes,
    "format": check_format,
    "symbols": check_symbols,
    "crash_points": check_crash_points,
    "version": check_version,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rule", choices=RULES)
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("libraries", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    problems = list(RULES[arguments.rule](arguments.root, *arguments.libraries))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
