#!/usr/bin/env python3
"""check_points.py finds a point that was never hit, and leaves alone what is right.

Usage: test_check_points.py CC READELF
"""

import pathlib
import subprocess
import sys
import tempfile
import unittest

SOURCE = """\
#define MPX_CRASH_POINTS 1
#include "os/crash_point.h"
void mpx_crash_point(const char *name) { (void)name; }
void f(void) { MPROC_CRASH_POINT("pool.taken"); }
void g(int x) { if (x) MPROC_CRASH_POINT("pool.left"); else MPROC_CRASH_POINT("a"); }
"""
HERE = pathlib.Path(__file__).resolve().parent
COMPILER, READELF = sys.argv[1:3]


class Comparison(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        (self.root / "pool.c").write_text(SOURCE)
        subprocess.run([COMPILER, "-c", "-I", HERE.parent.parent / "src", self.root / "pool.c",
                        "-o", self.root / "pool.o"], check=True)
        subprocess.run(["ar", "rc", self.root / "pool.a", self.root / "pool.o"], check=True)

    def assert_result(self, code, output, *logs):
        paths = []
        for log in logs:
            paths.append(self.root / f"log{len(paths)}")
            paths[-1].write_text(log)
        result = subprocess.run(
            [sys.executable, "-B", HERE / "check_points.py", READELF, self.root / "pool.a", *paths],
            text=True, stdout=subprocess.PIPE, check=False)
        self.assertEqual((result.returncode, result.stdout), (code, output))

    def test_all_were_hit(self):
        self.assert_result(0, "", "pool.taken\na\npool.taken\n", "pool.left\n")

    def test_one_was_not_hit(self):
        self.assert_result(1, "pool.left was never hit\n", "pool.taken\n", "a\n")

    def test_one_was_not_hit_where_cases_were_skipped(self):
        self.assert_result(77, "a was never hit\n", "pool.taken\npool.left\n", "# skipped\n")

    def test_all_were_hit_and_cases_were_skipped(self):
        self.assert_result(0, "", "pool.taken\n# skipped\n", "pool.left\na\n")

    def test_one_is_not_there(self):
        self.assert_result(1, "pool.gone was hit, and is not in the library\n",
                           "pool.taken\npool.left\na\npool.gone\n# skipped\n")

    def test_no_points(self):
        (self.root / "empty.c").write_text("int x;\n")
        subprocess.run([COMPILER, "-c", self.root / "empty.c", "-o", self.root / "pool.a"],
                       check=True)
        self.assert_result(1, f"{self.root}/pool.a: no crash points\n", "")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
