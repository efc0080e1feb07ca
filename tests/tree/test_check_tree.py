#!/usr/bin/env python3
"""Each rule of check_tree.py finds what it is there for, and leaves alone what is right."""

import pathlib
import subprocess
import tempfile
import unittest

import check_tree

GOOD = {
    "CMakeLists.txt": "project(mproc VERSION 1.2.3)\n",
    "include/mproc/version.h": """\
#define MPROC_VERSION_MAJOR 1
#define MPROC_VERSION_MINOR 2
#define MPROC_VERSION_PATCH 3
#define MPROC_VERSION_STRING "1.2.3"
#ifdef _WIN32
#define MPROC_API
#endif
""",
    "include/mproc/pool.h": "MPROC_API int mproc_pool_join(int *pool,\n  int timeout_ms);\n",
    "src/base/list.h": "#include <stddef.h>\n#include <mproc/version.h>\n",
    "src/os/linux/fork.c": '#include "os/linux/pidfd.h"\n#include <unistd.h>\n'
                           '#ifdef __linux__\n#endif\n',
    "src/pool/pool.c": '#include "base/list.h"\n#include "os/os.h"\n#include "pool/task.h"\n'
                       'void f(void) {\n  MPROC_CRASH_POINT("pool.taken");\n}\n',
    "tests/crash/test_pool.c": 'const char *point = "pool.taken:2";\n',
    "cli/main.c": '#include "cli.h"\n#include <mproc/pool.h>\n',
    "bench/CMakeLists.txt": "mproc_add_bench(bench_heap INTERNAL)\nmproc_add_bench(bench_pool)\n",
    "bench/bench_heap.c": '#include "heap/family.h"\n',
}


class Rules(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        for path, text in GOOD.items():
            self.write(path, text)

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def check(self, rule, *libraries):
        return list(check_tree.RULES[rule](self.root, *libraries))

    def assert_found(self, rule, path, text, *parts):
        """The good tree breaks no rule; with this file it breaks one, once."""
        self.assertEqual(self.check(rule), [])
        self.write(path, text)
        problems = self.check(rule)
        self.assertEqual(len(problems), 1, problems)
        for part in (path, *parts):
            self.assertIn(part, problems[0])

    def test_include_from_a_higher_layer(self):
        self.assert_found("layers", "src/sync/lock.c", '#include "ipc/queue.h"\n', ":1:", "higher")

    def test_include_from_one_port(self):
        self.assert_found("layers", "src/heap/heap.c", '#include "os/linux/pidfd.h"\n', "os/os.h")

    def test_source_in_no_layer(self):
        self.assert_found("layers", "src/main.c", "", "no layer")

    def test_program_that_looks_inside(self):
        self.assert_found("layers", "cli/cmd_run.c", '#include "heap/family.h"\n', "public")

    def test_bench_that_looks_inside(self):
        self.assert_found("layers", "bench/bench_pool.c", '#include "pool/pool.h"\n', "public")

    def test_conditional_on_the_system(self):
        self.assert_found("systems", "src/ipc/queue.c", "#if A && defined(__linux__)\n#endif\n",
                          ":1:")

    def test_conditional_in_a_public_header(self):
        self.assert_found("systems", "include/mproc/queue.h", "#ifndef _WIN32\n#endif\n", ":1:")

    def test_posix_header(self):
        self.assert_found("posix", "src/ipc/pipe.c", "#include <sys/mman.h>\n", "<sys/mman.h>")

    def test_posix_header_with_a_reason(self):
        self.write("src/ipc/pipe.c", "#include <poll.h>\n")
        check_tree.POSIX_EXCEPTIONS["src/ipc/pipe.c"] = ("poll.h", "only here, for this test")
        self.addCleanup(check_tree.POSIX_EXCEPTIONS.clear)
        self.assertEqual(self.check("posix"), [])

    def test_long_file(self):
        self.assert_found("sizes", "src/base/a.c", "\n" * 801, "801 lines")

    def test_long_line(self):
        self.assert_found("sizes", "src/base/a.c", "\n/* " + "é" * 98 + "\n", ":2: 101 columns")

    def test_long_function(self):
        def body(lines):
            text = '  if (*p == \'{\') puts("}}"); /* } */\n' + "  x++;\n" * (lines - 3)
            return f'extern "C" {{\n#define E }}\nstatic int\nf(char *p) {{\n{text}}}\n}}\n'
        self.write("src/base/a.c", body(69))
        self.assert_found("sizes", "src/base/b.c", body(70), ":3: f has 71 lines")

    def test_long_initializer_is_no_function(self):
        self.write("src/base/a.c", "int table[] = {\n" + "  1,\n" * 90 + "};\n")
        self.assertEqual(self.check("sizes"), [])

    def test_layout(self):
        self.write("tests/crash/test_pool.c", "int  spaced;\n")
        problems = self.check("format")
        self.assertTrue(any(p.startswith("tests/crash/test_pool.c:1: not") for p in problems))

    def test_untested_crash_point(self):
        self.assert_found("crash_points", "src/ipc/queue.c",
                          'MPROC_CRASH_POINT("queue.put.claimed");\n', "queue.put.claimed")

    def test_crash_point_named_twice(self):
        self.write("src/sync/lock.c", 'MPROC_CRASH_POINT("pool.taken");\n')
        problems = self.check("crash_points")
        self.assertEqual(len(problems), 1, problems)
        self.assertIn("crash point pool.taken is also at", problems[0])

    def test_versions_that_differ(self):
        self.assertEqual(self.check("version"), [])
        self.write("CMakeLists.txt", "project(mproc VERSION 1.2.4)\n")
        self.assertEqual(len(self.check("version")), 1)

    def test_symbols(self):
        source = self.root / "symbols.c"
        source.write_text("int mproc_extra, mpx_shared, stray;\n")
        shared, static = self.root / "libmproc.so", self.root / "libmproc.o"
        subprocess.run(["cc", "-shared", "-fPIC", source, "-o", shared], check=True)
        subprocess.run(["cc", "-c", source, "-o", static], check=True)
        problems = "\n".join(self.check("symbols", shared, static))
        self.assertIn("libmproc.so: exports mproc_extra", problems)
        self.assertIn("libmproc.so: exports mpx_shared", problems)
        self.assertIn("libmproc.so: does not export mproc_pool_join", problems)
        self.assertIn("libmproc.o: defines the global name stray", problems)
        self.assertNotIn("libmproc.o: defines the global name mpx_shared", problems)


if __name__ == "__main__":
    unittest.main()
