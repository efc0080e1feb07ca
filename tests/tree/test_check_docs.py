#!/usr/bin/env python3
"""Each rule of check_docs.py finds what it is there for, and leaves alone what is right."""

import pathlib
import shutil
import tempfile
import unittest

import check_docs

PAGE = '''\
.TH mproc_pool 3 2026-01-01 "mproc 1.2.3" "mproc manual"
.SH NAME
mproc_pool_join \\- wait for a pool
.SH OPTIONS
\\fBmproc_pool_options\\fR has \\fIworker_count\\fR, up to \\fBMPROC_MANY\\fR.
.SH ERRORS
.B MPROC_EFULL
.SH ENVIRONMENT
.B MPROC_POOL
.SH EXAMPLES
.EX
#include <mproc/pool.h>
#include <stdio.h>

int main(void) {
  printf("%d\\en", mproc_pool_join(NULL));
}
.EE
'''

GOOD = {
    "README.md": "# Pool\n\n[how](docs/guide.md#first-steps)\n\n```c\nint main(void) {}\n```\n",
    "docs/guide.md": "## First steps\n\n```c\nint x;\n```\n",
    "docs/man/mproc_pool.3": PAGE,
    "examples/01.c": "/* prints */\nint main(void) {}\n",
    "include/mproc/version.h": '#define MPROC_VERSION_STRING "1.2.3" /* MPROC_MANY */\n',
    "include/mproc/pool.h": '''\
#ifndef MPROC_POOL_H
#define MPROC_POOL_H
#include <stddef.h>
#define MPROC_MANY 9
#define MPROC_API
#define MPROC_ERROR_MAP(X) X(EFULL, -4095, "full")
/* MPROC_API int mproc_only_a_comment(void); */
typedef struct mproc_pool_options {
  size_t worker_count; /* 0: many */
} mproc_pool_options;
MPROC_API int mproc_pool_join(void *pool);
#endif
''',
    "src/pool/pool.c": 'void f(void) { mpx_setting("MPROC_POOL"); MPROC_CRASH_POINT("pool.taken"); }\n',
    "src/sync/lock.c": 'void g(void) { MPROC_CRASH_POINT("lock.taken"); MPROC_CRASH_POINT("lock.left"); }\n',
    "src/sync/README.md": "## Crash windows\n\n| point |\n|---|\n| `lock.taken`, `lock.left` |\n",
    "tests/models/lock.pml": "/* lock.c */\ninline take() { skip } /* lock.taken */\n",
    "tests/models/README.md": "| point | why |\n|---|---|\n| `lock.left` | private |\n| `pool.taken` | x |\n",
    "src/pool/README.md": "## Crash windows\n\n| point | repair |\n|---|---|\n| `pool.taken` | x |\n",
}


class Rules(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        for path, text in GOOD.items():
            self.write(path, text)
        self.write("docs/man/mproc_version.7", PAGE.split(".SH")[0].replace("_pool 3", "_version 7")
                   + ".SH NAME\nmproc \\- MPROC_VERSION_STRING MPROC_ERROR_MAP\n")

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def check(self, rule):
        return list(check_docs.RULES[rule](self.root))

    def assert_found(self, rule, path, old, new, *parts):
        """The good tree breaks no rule; with this change it breaks one, once."""
        self.assertEqual(self.check(rule), [])
        self.assertIn(old, GOOD[path])
        self.write(path, GOOD[path].replace(old, new))
        problems = self.check(rule)
        self.assertEqual(len(problems), 1, problems)
        for part in parts:
            self.assertIn(part, problems[0])

    def test_function(self):
        self.assert_found("manual", "include/mproc/pool.h", "#endif",
                          "MPROC_API int mproc_pool_join(int);\nMPROC_API int mproc_x(\n  int);",
                          "mproc_x", "no page")

    def test_function_without_name_line(self):
        self.assert_found("manual", "docs/man/mproc_pool.3", "mproc_pool_join \\-",
                          "\\- by mproc_pool_join,", "no page")

    def test_field(self):
        self.assert_found("manual", "include/mproc/pool.h", "size_t worker_count;",
                          "size_t worker_count; int nice;", "field of mproc_pool_options nice")

    def test_code(self):
        self.assert_found("manual", "include/mproc/pool.h", '"full")',
                          '"full") X(EEMPTY, -4094, "empty")', "MPROC_EEMPTY")

    def test_macro(self):
        self.assert_found("manual", "include/mproc/pool.h", "MPROC_MANY 9",
                          "MPROC_MANY 9\n#define MPROC_FEW 1", "MPROC_FEW")

    def test_variable(self):
        self.assert_found("manual", "src/pool/pool.c", "MPROC_POOL", "MPROC_SECRET", "MPROC_SECRET")

    def test_version_of_a_page(self):
        self.assert_found("pages", "docs/man/mproc_pool.3", "1.2.3", "1.2.2", "1.2.2")

    def test_warning(self):
        if not shutil.which("groff"):
            self.skipTest("no groff")
        self.assert_found("pages", "docs/man/mproc_pool.3", ".SH ERRORS", ".XH ERRORS", "XH")

    def test_example_of_a_page(self):
        self.assert_found("programs", "docs/man/mproc_pool.3", "join(NULL)", "join()", "example 1")

    def test_program_of_a_document(self):
        self.assert_found("programs", "docs/guide.md", "int x;", "int x", "guide.md:4")

    def test_link(self):
        self.assert_found("links", "README.md", "guide.md", "guides.md", "guides.md")

    def test_anchor(self):
        self.assert_found("links", "README.md", "#first-steps", "#last-steps", "#last-steps")

    def test_crash_point_without_row(self):
        self.assert_found("crash_rows", "src/pool/pool.c", '"pool.taken");',
                          '"pool.taken"); MPROC_CRASH_POINT("pool.left");', "pool.left")

    def test_crash_point_in_no_model(self):
        self.assert_found("model_steps", "tests/models/README.md", "lock.left", "", "lock.left")

    def test_reason_for_a_step_of_a_model(self):
        self.assert_found("model_steps", "tests/models/README.md", "`lock.left`",
                          "`lock.left`, `lock.taken`", "is in lock.pml")

    def test_reason_for_no_crash_point(self):
        self.assert_found("model_steps", "tests/models/README.md", "`lock.left`",
                          "`lock.left`, `heap.taken`", "heap.taken is no crash point of")

    def test_step_that_is_no_crash_point(self):
        self.assert_found("model_steps", "tests/models/lock.pml", "lock.taken */",
                          "lock.taken, lock.gone */", "lock.gone is no crash point")

    def test_row_without_crash_point(self):
        self.assert_found("crash_rows", "src/pool/README.md", "`pool.taken`",
                          "`pool.taken`, `pool.gone`", "pool.gone")


if __name__ == "__main__":
    unittest.main()
