#!/usr/bin/env python3
"""Checks that the README's first program is an example and that its output is the one tested.

Usage: check_readme.py README EXAMPLE
"""
import re
import sys

readme = open(sys.argv[1], encoding="utf-8").read()
comment, program = open(sys.argv[2], encoding="utf-8").read().split("*/\n", 1)
output = "".join(f"{line}\n" for line in re.findall(r"^ \*   (.*)$", comment, re.MULTILINE))
blocks = re.findall(r"^```(\w*)\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
if blocks[0] != ("c", program):
    sys.exit(f"the README's first program is not {sys.argv[2]}")
if not blocks[1][1].endswith(output):
    sys.exit(f"the README's first output is not that of {sys.argv[2]}")
