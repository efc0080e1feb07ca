#!/usr/bin/env python3
"""The command: what it prints, where, and with which exit status. Usage: test_cli.py MPROC"""
import json
import os
import re
import subprocess
import sys
import unittest

PROGRAM = ""
HAS_JSON = True

BAD_VALUES = {"MPROC_START_METHOD": "bogus", "MPROC_LOG": "loud", "MPROC_DEBUG": "everything"}


def run(*arguments, stdout=subprocess.PIPE, **variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MPROC_")}
    environment.update(variables)
    return subprocess.run([PROGRAM, *arguments], stdin=subprocess.DEVNULL, stdout=stdout,
                          stderr=subprocess.PIPE, text=True, env=environment, timeout=30)


class Methods(unittest.TestCase):
    def test_default_comes_first_and_is_marked(self):
        done = run("methods")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(done.stdout.startswith("  fork (default)"), done.stdout)
        self.assertEqual(done.stdout.count("(default)"), 1)
        self.assertIn("\n  spawn ", done.stdout)
        self.assertIn("\n  forkserver ", done.stdout)
        self.assertIn("MPROC_START_METHOD is not set", done.stdout.replace("\n", " "))

    def test_variable_changes_the_default_and_is_named(self):
        text = run("methods", MPROC_START_METHOD="spawn").stdout
        self.assertTrue(text.startswith("  spawn (default)"), text)
        self.assertIn("\n  fork ", text)
        self.assertIn("because MPROC_START_METHOD is set", text.replace("\n", " "))
        text = run("methods", MPROC_START_METHOD="fork").stdout.replace("\n", " ")
        self.assertIn("and would be without that too", text)

    def test_text_is_plain_and_aligned_in_80_columns(self):
        for variables in {}, {"MPROC_START_METHOD": "spawn"}:
            text = run("methods", **variables).stdout
            self.assertNotIn("\x1b", text)
            for line in text.splitlines():
                self.assertLessEqual(len(line), 80, line)
                self.assertEqual(line, line.rstrip())
            columns = {line.index(word) for line in text.splitlines()
                       for word in ("good for", "avoid when") if word in line}
            self.assertEqual(len(columns), 1, text)

    def test_bad_variable_is_an_error_that_lists_the_methods(self):
        done = run("methods", MPROC_START_METHOD="bogus")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        for word in "mproc: ", "MPROC_START_METHOD", "bogus", "fork", "spawn":
            self.assertIn(word, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_every_bad_variable_is_named(self):
        for name in BAD_VALUES:
            for options in [], ["--json"]:
                done = run("methods", *options, **{name: BAD_VALUES[name]})
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertTrue(done.stderr.startswith(f"mproc: {name}: "), done.stderr)

    def test_json(self):
        if not HAS_JSON:
            self.skipTest("built without libcjson")
        for variables, default in ({}, "fork"), ({"MPROC_START_METHOD": "spawn"}, "spawn"):
            done = run("methods", "--json", **variables)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            root = json.loads(done.stdout)
            self.assertEqual(list(root), ["default", "methods"])
            self.assertEqual(root["default"], default)
            self.assertEqual(root["methods"][0]["name"], default)
            self.assertEqual({m["name"] for m in root["methods"]}, {"fork", "spawn", "forkserver"})
            for method in root["methods"]:
                self.assertEqual(list(method), ["name", "default", "good_for", "avoid_when"])
                self.assertIs(method["default"], method["name"] == default)
                self.assertTrue(method["good_for"] and method["avoid_when"])

    def test_build_without_json_says_so(self):
        if HAS_JSON:
            self.skipTest("built with libcjson")
        done = run("methods", "--json")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("libcjson", done.stderr)


class Help(unittest.TestCase):
    def test_version(self):
        for option in "--version", "-V":
            done = run(option)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertRegex(done.stdout, r"\Amproc \d+\.\d+\.\d+\n\Z")

    def test_help_of_the_program(self):
        text = run("--help").stdout
        for line in text.splitlines():
            self.assertLessEqual(len(line), 80, line)
        self.assertIn("  methods ", text)
        self.assertEqual(run("-h").stdout, text)
        self.assertEqual(run("help").stdout, text)

    def test_help_of_every_command(self):
        for name in re.findall(r"^  ([a-z]+)  ", run("--help").stdout, re.MULTILINE):
            done = run("help", name)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertTrue(done.stdout.startswith(f"Usage: mproc {name} "), done.stdout)
            self.assertEqual(run(name, "--help").stdout, done.stdout)
            for line in done.stdout.splitlines():
                self.assertLessEqual(len(line), 80, line)

    def test_help_and_version_need_no_good_environment(self):
        for name in BAD_VALUES:
            for words in (["--version"], ["-V"], ["--help"], ["-h"], ["help"], ["help", "methods"],
                          ["help", "help"], ["help", "--help"], ["methods", "--help"]):
                done = run(*words, **{name: BAD_VALUES[name]})
                self.assertEqual((done.returncode, done.stderr), (0, ""), (name, words))
                self.assertEqual(done.stdout, run(*words).stdout)

    def test_no_command_prints_help_as_an_error(self):
        done = run()
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertTrue(done.stderr.startswith("Usage: mproc "))


class Mistakes(unittest.TestCase):
    def check(self, arguments, *words):
        done = run(*arguments)
        self.assertEqual((done.returncode, done.stdout), (2, ""), arguments)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertTrue(done.stderr.startswith("mproc: "), done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_command_near_a_known_one(self):
        for word in "method", "metohds", "mehtods", "methodss", "mthds", "meth", "me":
            self.check([word], f"unknown command '{word}'", "did you mean 'methods'?")
        self.check(["hlep"], "did you mean 'help'?")
        self.check(["help", "metods"], "did you mean 'methods'?")

    def test_command_near_none(self):
        for word in "frobnicate", "x", "", "a" * 500:
            self.check([word], "unknown command", "--help")

    def test_options(self):
        self.check(["--verison"], "unknown option '--verison'", "did you mean '--version'?")
        self.check(["--nonsense"], "unknown option '--nonsense'", "see 'mproc --help'")
        self.check(["-x"], "unknown option '-x'", "see 'mproc --help'")
        self.check(["methods", "--jsn"], "unknown option '--jsn'", "did you mean '--json'?")
        self.check(["methods", "--json=yes"], "option '--json' takes no value")
        self.check(["methods", "-j"], "unknown option '-j'", "see 'mproc methods --help'")

    def test_mistakes_are_told_in_a_bad_environment(self):
        for name in BAD_VALUES:
            done = run("metohds", **{name: BAD_VALUES[name]})
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertIn("did you mean 'methods'?", done.stderr)

    def test_arguments_too_many(self):
        self.check(["methods", "fork"], "takes no argument 'fork'", "see 'mproc methods --help'")
        self.check(["help", "methods", "more"], "takes no argument 'more'")


class Output(unittest.TestCase):
    def test_full_disk(self):
        with open("/dev/full", "w") as full:
            done = run("methods", stdout=full)
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot write to standard output", done.stderr)

    def test_reader_that_went_away(self):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            done = run("methods", stdout=writing)
        finally:
            os.close(writing)
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot write to standard output", done.stderr)

    def test_closed_output(self):
        done = subprocess.run(["sh", "-c", 'exec "$0" methods >&-', PROGRAM],
                              stderr=subprocess.PIPE, text=True, timeout=30)
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot write to standard output", done.stderr)


if __name__ == "__main__":
    PROGRAM = sys.argv[1]
    HAS_JSON = "--no-json" not in sys.argv
    unittest.main(argv=sys.argv[:1], verbosity=1)
