#!/usr/bin/env python3
"""Runs an example and compares its output with the comment at the head of its source.

Usage: check_output.py SOURCE PROGRAM [ARGUMENT]...
The expected lines follow "Prints:"; in them "..." stands for anything.
"""
import re
import subprocess
import sys


def expected_lines(source):
    comment = open(source, encoding="utf-8").read().split("*/", 1)[0]
    if "Prints:\n" not in comment:
        sys.exit(f"{source}: the first comment does not say what the example prints")
    block = comment.split("Prints:\n", 1)[1]
    return [line.removeprefix(" *   ") for line in block.splitlines() if line.startswith(" *   ")]


def matches(expected, line):
    return re.fullmatch(".*".join(re.escape(part) for part in expected.split("...")), line)


def main():
    source, program = sys.argv[1], sys.argv[2:]
    expected = expected_lines(source)
    done = subprocess.run(program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          timeout=120)
    lines = done.stdout.splitlines()
    if (done.returncode == 0 and len(lines) == len(expected)
            and all(matches(e, line) for e, line in zip(expected, lines))):
        return 0
    print(f"{program[0]}: exit status {done.returncode}", "expected:", *expected,
          "printed:", *lines, sep="\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
