#!/usr/bin/env python3
"""Compares the crash points in a library with those at which a test died.

Usage: check_points.py READELF LIBRARY LOG...

The names are read from the section of the library that src/os/crash_point.h puts them into. A log
is what one test program hit, and a line "# skipped" for each case that did not run. Prints what is
missing, one line each: exit code 1, or 77 where cases were skipped, which is no answer.
"""

import pathlib
import re
import subprocess
import sys

SECTION = "mpx_crash_points"
SKIPPED = "# skipped"
NO_ANSWER = 77


def points_in(readelf, library):
    output = subprocess.run([readelf, "--string-dump", SECTION, library], text=True, check=True,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return set(re.findall(r"^  \[ *[0-9a-f]+\]  (\S+)$", output, flags=re.M))


def main():
    readelf, library, *logs = sys.argv[1:]
    points = points_in(readelf, library)
    if not points:
        print(f"{library}: no crash points")
        return 1
    hits = set()
    for log in logs:
        hits |= set(pathlib.Path(log).read_text().splitlines())
    was_skipped = SKIPPED in hits
    hits.discard(SKIPPED)
    for name in sorted(hits - points):
        print(f"{name} was hit, and is not in the library")
    for name in sorted(points - hits):
        print(f"{name} was never hit")
    if hits >= points:
        return 0 if hits == points else 1
    return NO_ANSWER if was_skipped and hits <= points else 1


if __name__ == "__main__":
    sys.exit(main())
