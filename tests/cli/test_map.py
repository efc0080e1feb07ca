#!/usr/bin/env python3
"""mproc map: what it prints, in which order, with which exit status, and what it leaves behind.

Usage: test_map.py MPROC --completion FOLDER [--plugin MAP_PLUGIN]"""
import argparse
import base64
import fcntl
import json
import os
import pty
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import unittest

PROGRAM = PLUGIN = COMPLETION = ""
METHODS = ["fork", "spawn", "forkserver"]
HEADER = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand"


def environment(variables):
    result = {k: v for k, v in os.environ.items() if not k.startswith("MPROC_")}
    result.update(variables)
    return result


def run(*arguments, stdin=b"", timeout=60, cwd=None, **variables):
    """Runs `mproc map`; standard input is bytes or a file."""
    source = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    return subprocess.run([PROGRAM, "map", *arguments], stdout=subprocess.PIPE, cwd=cwd,
                          stderr=subprocess.PIPE, env=environment(variables), timeout=timeout,
                          **source)


def start(*arguments, **streams):
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
               **streams}
    return subprocess.Popen([PROGRAM, "map", *arguments], env=environment({}),
                            start_new_session=True, **streams)


def call(name, *inputs, options=(), **more):
    return run(*options, f"{PLUGIN}:{name}", *inputs, **more)


def processes_with(mark, program=True):
    """Pids of processes that have the mark in their command line and live, of the program too."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                line = file.read()
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                state = file.read().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if not program and line.startswith(PROGRAM.encode()):
            continue
        if mark.encode() in line and state not in "ZX" and int(entry) != os.getpid():
            found.append(int(entry))
    return found


def descendants(pid):
    found = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                for child in map(int, file.read().split()):
                    found += [child, *descendants(child)]
    except OSError:
        pass
    return found


def memory_kib(pid, name):
    """A line of /proc/PID/status; 0 of a process that is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            found = re.search(name + r":\s+(\d+)", file.read())
    except OSError:
        found = None
    return int(found[1]) if found else 0


def is_full(reading):
    """Whether a pipe of the usual size has no room for a page more."""
    return int.from_bytes(fcntl.ioctl(reading, termios.FIONREAD, bytes(4)), sys.byteorder) > 60000


def handles(pid, number):
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return int(re.search(r"SigCgt:\s+(\w+)", file.read())[1], 16) >> (number - 1) & 1


# A wait that no run takes to its end: sanitizers and a loaded machine are slow.
PATIENCE = 60


def wait_until(condition, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="mproc-map-test-")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def put(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data)
        return self.path(name)

    def check(self, done, out, status=0, errors=b""):
        self.assertEqual((done.returncode, done.stdout), (status, out), done.stderr)
        if errors is not None:
            self.assertEqual(done.stderr, errors)

    def check_error(self, done, *words, status=255):
        self.assertEqual((done.returncode, done.stdout), (status, b""), done.stderr)
        self.assertTrue(done.stderr.startswith(b"mproc: "), done.stderr)
        for word in words:
            self.assertIn(word.encode(), done.stderr)

    def rows(self, name="log"):
        with open(self.path(name), encoding="utf-8") as file:
            lines = file.read().split("\n")
        self.assertEqual((lines[0], lines[-1]), (HEADER, ""))
        return [line.split("\t") for line in lines[1:-1]]

    def count_lines(self, name):
        """Of a file that somebody else is writing, or has not even created."""
        try:
            with open(self.path(name), "rb") as file:
                return file.read().count(b"\n")
        except FileNotFoundError:
            return 0


class Commands(Case):
    def test_input_is_appended_or_replaced(self):
        self.check(run("--", "echo", ":::", "a", "b c", ""), b"a\nb c\n\n")
        self.check(run("--", "echo", "<{}>", "{}{}", ":::", "a", "b c"), b"<a> aa\n<b c> b cb c\n")

    def test_replacement_strings(self):
        words = ["{}", "{.}", "{/}", "{//}", "{/.}", "{#}"]
        inputs = ["d.x/a.b.c", "a.b", "/a", "d/", "a", ".rc", "d.x/a", "a."]
        done = run("--", "printf", "%s|" * 6 + r"\n", *words, ":::", *inputs)
        expected = ["d.x/a.b.c|d.x/a.b|a.b.c|d.x|a.b|1|", "a.b|a|a.b|.|a|2|", "/a|/a|a|/|a|3|",
                    "d/|d/||.||4|", "a|a|a|.|a|5|", ".rc||.rc|.||6|", "d.x/a|d.x/a|a|d.x|a|7|",
                    "a.|a.|a.|.|a.|8|"]
        self.check(done, "".join(f"{line}\n" for line in expected).encode())

    def test_number_alone_is_a_replacement(self):
        self.check(run("--", "echo", "{#}", ":::", "a", "b"), b"1\n2\n")

    def test_lines_of_standard_input(self):
        self.check(run("--", "echo", stdin=b"a\nb c\n\nlast"), b"a\nb c\n\nlast\n")
        self.check(run("--", "echo", stdin=b""), b"")

    def test_lines_of_a_file(self):
        self.check(run("-a", self.put("list", b"a\nb\n"), "--", "echo"), b"a\nb\n")
        self.check(run("-a", "-", "--", "echo", stdin=b"x\n"), b"x\n")
        with open(self.path("list"), "rb") as file:
            self.check(run("--", "echo", stdin=file), b"a\nb\n")

    def test_inputs_that_end_with_a_zero(self):
        self.check(run("-0", "--", "printf", "<%s>", stdin=b"a\nb\0c\0\0d"), b"<a\nb><c><><d>")

    def test_order(self):
        """The last input ends first; each other when what comes behind it is over."""
        script = 'until test -e "$1/go$0"; do sleep 0.01; done; echo $0; echo >"$1/end$0"'
        for options in [], ["--unordered"]:
            folder = self.path("order" + "".join(options))
            os.mkdir(folder)
            program = start("-j3", *options, "--", "sh", "-c", script, "{}", folder, ":::", *"abc")
            self.addCleanup(program.kill)
            for letter in "cba":
                self.put(os.path.join(folder, f"go{letter}"), b"")
                if options:
                    self.assertEqual(program.stdout.readline(), f"{letter}\n".encode())
                else:
                    self.assertTrue(wait_until(lambda: os.path.exists(f"{folder}/end{letter}")))
            out, errors = program.communicate(timeout=PATIENCE)
            self.assertEqual((program.returncode, out, errors), (0, b"" if options else b"a\nb\nc\n",
                                                                 b""))

    def test_output_is_never_mixed(self):
        script = ("for i in 1 2 3 4 5 6 7 8; do echo $0 $i; echo $0 $i >&2; "
                  "head -c 20000 /dev/zero | tr '\\0' $0; echo; sleep 0.01; done")
        letters = "abcdefgh"
        done = run("-j8", "--unordered", "--", "sh", "-c", script, ":::", *letters)
        self.assertEqual(done.returncode, 0)
        for stream, step in (done.stdout, 16), (done.stderr, 8):
            lines = stream.decode().splitlines()
            self.assertEqual(len(lines), 8 * step)
            for i in range(0, len(lines), step):
                self.assertEqual(len({line[0] for line in lines[i:i + step]}), 1)
        ordered = run("-j8", "--", "sh", "-c", script, ":::", *letters)
        self.assertEqual(sorted(ordered.stdout.splitlines()), sorted(done.stdout.splitlines()))
        self.assertEqual([line[:1] for line in ordered.stderr.decode().splitlines()],
                         [letter for letter in letters for _ in range(8)])

    def test_large_output_and_reopened_streams(self):
        done = run("--", "head", "-c", "30000000", ":::", "/dev/zero")
        self.assertEqual((done.returncode, len(done.stdout)), (0, 30000000))
        script = "echo a; echo b >/dev/stdout; echo c >/dev/stderr; echo d"
        self.check(run("--", "sh", "-c", script, ":::", "x"), b"a\nb\nd\n", errors=b"c\n")

    def skip_if_memory_is_not_its_own(self):
        with open(PROGRAM, "rb") as file:
            if b"__tsan_init" in file.read():
                self.skipTest("ThreadSanitizer keeps several bytes for each that is read")

    def test_output_takes_bounded_memory_of_workers(self):
        self.skip_if_memory_is_not_its_own()
        size = 300000000
        program = start("-j2", "--", "sh", "-c", "head -c $0 /dev/zero; head -c $0 /dev/zero >&2",
                        ":::", str(size), stderr=subprocess.DEVNULL)
        self.addCleanup(program.wait)
        self.addCleanup(program.stdout.close)
        seen = len(os.read(program.stdout.fileno(), 1 << 20))
        peak = max(memory_kib(pid, "VmHWM") for pid in descendants(program.pid))
        while chunk := os.read(program.stdout.fileno(), 1 << 20):
            seen += len(chunk)
        self.assertEqual((seen, program.wait(timeout=PATIENCE)), (size, 0))
        self.assertLess(peak, 100 << 10)

    def test_json_of_large_output_takes_bounded_memory(self):
        self.skip_if_memory_is_not_its_own()
        size = 60000000
        for fill, name in ("a", "stdout"), ("\\377", "stdout_base64"):
            program = start("--json", "--", "sh", "-c", "head -c $0 /dev/zero | tr '\\0' '" + fill +
                            "'", ":::", str(size))
            self.addCleanup(program.communicate)
            line, peak = [], 0
            while chunk := os.read(program.stdout.fileno(), 1 << 22):
                line.append(chunk)
                peak = max(peak, memory_kib(program.pid, "RssAnon"))
            self.assertLess(peak, 50 << 10)
            out = json.loads(b"".join(line))[name]
            self.assertEqual(len(out), size if fill == "a" else size // 3 * 4)

    def test_streams_of_each_size_are_told_apart(self):
        small, large = "100", "5000000"
        for out in small, large:
            for errors in small, large:
                done = run("--", "sh", "-c", "head -c $0 /dev/zero | tr '\\0' o; "
                           f"head -c {errors} /dev/zero | tr '\\0' e >&2", ":::", out, out)
                self.check(done, b"o" * 2 * int(out), errors=b"e" * 2 * int(errors))

    def test_folder_for_large_output(self):
        words = ["--", "sh", "-c", "head -c $0 /dev/zero; echo no >>$1", "{}", self.path("mark"),
                 ":::", "20000000", "5"]
        done = run(*words, TMPDIR="/nonexistent")
        self.assertEqual((done.returncode, done.stdout[-5:]), (1, bytes(5)))
        self.assertRegex(done.stderr, rb"\Amproc: input 1, 20000000: its output does not fit into "
                                      rb"/nonexistent \(.*TMPDIR.*\): No such file.*\n\Z")
        self.assertEqual(len(run(*words, TMPDIR=self.folder).stdout), 20000005)
        self.assertEqual(os.listdir(self.folder), ["mark"])

    def test_folder_for_large_output_is_full(self):
        script = "until test -e $1; do sleep 0.01; done; head -c $0 /dev/zero"
        program = start("-j1", "--", "sh", "-c", script, "20000000", self.path("go"), ":::", "x")
        self.addCleanup(program.kill)
        self.assertTrue(wait_until(lambda: len(descendants(program.pid)) >= 3))
        for pid in descendants(program.pid):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (10000000, 10000000))
        self.put("go", b"")
        _, errors = program.communicate(timeout=PATIENCE)
        self.assertEqual(program.returncode, 1, errors)
        self.assertIn(b"does not fit into " + tempfile.gettempdir().encode(), errors)
        self.assertIn(b"File too large", errors)

    def test_exit_status_is_the_number_of_failures(self):
        self.check(run("--", "true", ":::", *"abc"), b"")
        self.check(run("--", "sh", "-c", "exit $0", ":::", "0", "1", "2", "0", "9"), b"", 3)
        self.check(run("--", "false", ":::", *map(str, range(100))), b"", 100)
        self.check(run("--", "false", ":::", *map(str, range(140))), b"", 101)

    def test_signal_is_told(self):
        done = run("--", "sh", "-c", "kill -SEGV $$", ":::", "x")
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertRegex(done.stderr, rb"\Amproc: input 1, x: killed by signal 11 .*\n\Z")

    def test_command_that_is_none(self):
        self.check_error(run("--", "no-such-command", ":::", "a"), "'no-such-command'", "PATH")
        self.check_error(run("--", "./none", ":::", "a"), "./none", "No such file")
        self.check_error(run("--", "/etc/passwd", ":::", "a"), "/etc/passwd", "cannot be executed")
        self.check_error(run("--", "echo a", ":::", "a"), "--shell")
        done = run("--", "{}", ":::", "true", "no-such-command")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"input 2, no-such-command: No such file", done.stderr)

    def test_shell(self):
        done = run("--shell", "--", "printf '<%s>' {} | tr a-z A-Z", ":::", "a b", "it's", "$x\ny")
        self.check(done, b"<A B><IT'S><$X\nY>")
        self.check(run("--shell", "--", "echo", ":::", "a  b"), b"a  b\n")

    def test_input_in_quotes_of_a_line_for_a_shell(self):
        mark = self.path("mark")
        inputs = [f"$(touch {mark})", f"'$(touch {mark})'", f"`touch {mark}`",
                  f"';touch {mark};'"]
        for line in ('echo "{}"', "echo '{}'", 'echo "a {.}"', 'echo "$(echo "a {} b")"',
                     "echo `echo {}`", "echo \\{}", "echo ${}", "cat <<E\n{}\nE",
                     "echo # '\necho '{}'", 'echo # "\necho "{}"', "echo \\' '{}'",
                     'echo "${x:-{}}"', "echo \"'{}'\""):
            self.check_error(run("--shell", "--", line, ":::", *inputs), "{} without quotes")
        self.check_error(run("--shell", "--", "echo '", "{}", "'", ":::", "a"), "without quotes")
        for line in ("echo {}", "'echo' {}\"\"''", "echo $(echo {})", "(echo {})",
                     "echo \\\"{} | tr -d '\"'", "true # '\necho {}", "x=1; echo ${x#1}{}",
                     "echo \"$(echo '\"' \")\" | tr -d x)\" >/dev/null; echo {}",
                     "case a in a) echo {};; esac"):
            done = run("--shell", "--", line, ":::", *inputs)
            self.check(done, "".join(f"{text}\n" for text in inputs).encode())
        self.assertFalse(os.path.exists(mark))

    def test_command_reads_no_input(self):
        self.check(run("--", "sh", "-c", "cat; echo $0", stdin=b"a\nb\n"), b"a\nb\n")

    def test_input_with_a_zero_is_refused_and_counted(self):
        done = run("--", "echo", stdin=b"a\nb\0c\nd\n")
        self.assertEqual((done.returncode, done.stdout), (1, b"a\nd\n"))
        self.assertIn(b"input 2, ", done.stderr)
        self.assertIn(b"NUL", done.stderr)

    def test_huge_input_is_refused_and_counted(self):
        done = run("--", "echo", stdin=b"a\n" + b"x" * 5000000 + b"\nb\n")
        self.assertEqual((done.returncode, done.stdout), (1, b"a\nb\n"))
        self.assertIn(b"too long for the system", done.stderr)

    def test_timeout_kills_the_group(self):
        mark = f"7{os.getpid()}.25"
        began = time.monotonic()
        done = run("--timeout", "0.6", "--", "sh", "-c", "echo $0; sleep $0 & sleep $0; echo no",
                   ":::", mark)
        self.assertLess(time.monotonic() - began, PATIENCE / 2)
        self.assertEqual((done.returncode, done.stdout), (1, f"{mark}\n".encode()), done.stderr)
        self.assertIn(b"timed out after ", done.stderr)
        self.assertTrue(wait_until(lambda: not processes_with(mark)))

    def test_timeout_gives_all_time_to_clean_up(self):
        script = ("(trap 'sleep 0.2; echo cleaned; echo >\"$0\"; exit' TERM; echo begun; "
                  "while :; do sleep 0.02; done) & wait")
        began = time.monotonic()
        done = run("--timeout", "0.6", "--", "sh", "-c", script, ":::", self.path("mark"))
        self.assertEqual((done.returncode, done.stdout), (1, b"begun\ncleaned\n"), done.stderr)
        self.assertTrue(os.path.exists(self.path("mark")))
        self.assertIn(b"timed out after ", done.stderr)
        self.assertLess(time.monotonic() - began, PATIENCE / 2)

    def test_timeout_of_one_that_ignores_it(self):
        began = time.monotonic()
        done = run("--timeout", "0.2s", "--", "sh", "-c", "trap '' TERM; while :; do :; done",
                   ":::", "x")
        self.assertEqual(done.returncode, 1)
        self.assertLess(time.monotonic() - began, PATIENCE / 2)

    def test_memory(self):
        hog = "import time\nblocks = []\nwhile True: blocks.append(b'x' * (1 << 20)); " \
              "time.sleep(0.0005)"
        done = run("--memory", "100M", "--", "sh", "-c", 'test $0 = ok || "$1" -c "$2"; echo $0',
                   "{}", sys.executable, hog, ":::", "hog", "ok")
        self.assertEqual((done.returncode, done.stdout), (1, b"ok\n"), done.stderr)
        self.assertIn(b"input 1, hog: above its memory limit", done.stderr)

    def test_retries(self):
        script = 'echo x >>"$0"; test $(wc -l <"$0") -ge 3 && echo done || { echo no; exit 1; }'
        self.check(run("--retries", "2", "--", "sh", "-c", script, ":::", self.path("a")),
                   b"done\n")
        self.check(run("--retries", "1", "--", "sh", "-c", script, ":::", self.path("b")),
                   b"no\n", 1)
        with open(self.path("b"), encoding="utf-8") as file:
            self.assertEqual(len(file.readlines()), 2)

    def test_number_of_attempts(self):
        """However an attempt fails, and whatever the pool tries by itself."""
        count = 'n=$(echo x >>"$0"; wc -l <"$0"); '
        ways = {"exit": "exit 3", "signal": "kill -9 $$", "slow": "sleep 60",
                "worker": "kill -9 $PPID; sleep 60",
                "worker at last": "test $n -lt 3 && exit 3; kill -9 $PPID; sleep 60",
                "worker at first": "test $n -gt 1 && exit 3; kill -9 $PPID; sleep 60"}
        for way, script in ways.items():
            for retries in "0", "2":
                mark = self.path(f"{way} {retries}")
                limit = ["--timeout", "0.2"] if way == "slow" else []
                done = run("--retries", retries, "--json", *limit, "--", "sh", "-c", count + script,
                           ":::", mark)
                with open(mark, encoding="utf-8") as file:
                    self.assertEqual(len(file.readlines()), int(retries) + 1, (way, done))
                self.assertEqual(done.returncode, 1, (way, done))
                self.assertEqual(json.loads(done.stdout)["attempts"], int(retries) + 1, (way, done))

    def test_child_left_behind_is_not_waited_for(self):
        mark = f"1{os.getpid()}.125"
        self.addCleanup(lambda: [os.kill(pid, signal.SIGKILL) for pid in processes_with(mark)])
        self.check(run("--", "sh", "-c", "sleep $0 & echo a", ":::", mark), b"a\n")

    def test_child_left_behind_that_writes_without_end(self):
        done = run("--", "sh", "-c", "head -c $0 /dev/zero & exit 0", ":::", "400000000")
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertLess(len(done.stdout), 200000000)

    def test_number_of_jobs(self):
        """The first wait for each other, so that they run at once; no more run beside them."""
        script = ('mkdir "$1/$0"; until test $0 -gt $2 || test $(ls "$1" | wc -l) -ge $2; do '
                  'sleep 0.01; done; sleep 0.05; ls "$1" | wc -l; rmdir "$1/$0"')
        for jobs in 1, 3:
            folder = self.path(f"jobs{jobs}")
            os.mkdir(folder)
            done = run(f"-j{jobs}", "--", "sh", "-c", script, "{}", folder, str(jobs), ":::",
                       *map(str, range(1, 7)))
            self.assertEqual(max(map(int, done.stdout.split())), jobs)

    def test_every_start_method(self):
        for method in METHODS:
            self.check(run("--start-method", method, "--", "echo", ":::", "a", "b"), b"a\nb\n")
            self.check(run("--", "echo", ":::", "a", MPROC_START_METHOD=method), b"a\n")

    def test_signals_of_commands_are_the_callers(self):
        done = run("--", "grep", "-E", "Sig(Blk|Ign)", ":::", "/proc/self/status")
        self.check(done, b"SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n")

    def test_descriptors_of_commands(self):
        done = run("--", "sh", "-c", "exec ls -l /proc/self/fd", ":::", "x")
        numbers = re.findall(rb" (\d+) -> ", done.stdout)
        self.assertEqual(numbers, [b"0", b"1", b"2", b"3"], done.stdout)


class Functions(Case):
    def setUp(self):
        super().setUp()
        if not PLUGIN:
            self.skipTest("a static build loads no library")

    def test_results(self):
        self.check(call("upper", "a", "b c", "", "d\n"), b"A\nB C\n\nD\n")
        self.check(call("echo", stdin=b"a\nb\0c\n\nlast"), b"a\nb\0c\n\nlast\n")
        self.check(call("echo", ":::", "a", "b"), b"a\nb\n")
        self.check(call("echo", "a", "b", options=["--raw"]), b"ab")

    def test_every_start_method(self):
        for method in METHODS:
            self.check(call("upper", "a", "b", options=["--start-method", method]), b"A\nB\n")

    def test_library_without_a_slash(self):
        shutil.copy(PLUGIN, self.path("plugin.so"))
        self.check(run("plugin.so:echo", "a", cwd=self.folder), b"a\n")

    def test_many_short_inputs(self):
        count = 200000
        lines = b"".join(b"%d\n" % i for i in range(count))
        self.check(call("echo", stdin=lines), lines)
        done = call("echo", stdin=lines, options=["--unordered"])
        self.assertEqual(done.returncode, 0)
        self.assertEqual(sorted(done.stdout.split()), sorted(lines.split()))

    def test_numbers_of_inputs(self):
        count = 20000
        done = call("number", stdin=b"x\n" * count)
        self.check(done, b"".join(b"%d 1\n" % i for i in range(count)))

    def test_huge_inputs_and_results(self):
        large = b"x" * 20000000
        self.check(call("upper", stdin=large + b"\na\n"), large.upper() + b"\nA\n")
        done = call("repeat", "40000000", "3")
        self.assertEqual((done.returncode, len(done.stdout)), (0, 40000001 + 4))

    def test_what_it_prints_belongs_to_its_input(self):
        done = call("prints", *"abcdefgh", options=["-j4"])
        self.check(done, b"".join(b"one %c\ntwo\nthree\n" % c for c in b"abcdefgh"))

    def test_no_standard_input(self):
        self.check(call("reads_input", stdin=b"a\nb\n"), b"nothing\nnothing\n")

    def test_crash_is_the_one_input_s(self):
        words = {"segv": b"SIGSEGV", "abort": b"SIGABRT", "exit": b"7", "fail": b"does not like"}
        for word, text in words.items():
            done = call("ends", "a", word, "b")
            self.assertEqual((done.returncode, done.stdout), (1, b"a\nb\n"), done.stderr)
            self.assertIn(b"mproc: input 2, " + word.encode(), done.stderr)
            self.assertIn(text, done.stderr)
            self.assertEqual(done.stderr.count(b"\n"), 1, done.stderr)

    def test_crashes_among_many(self):
        bad = {100: b"segv", 5000: b"exit", 5001: b"fail", 29999: b"abort"}
        lines = [bad.get(i, b"%d" % i) for i in range(30000)]
        for options in [], ["-j4"], ["--start-method", "spawn"]:
            done = call("ends", stdin=b"\n".join(lines), options=options, timeout=120)
            self.assertEqual(done.returncode, len(bad), done.stderr)
            self.assertEqual(done.stdout.split(), [x for i, x in enumerate(lines) if i not in bad])
            told = re.findall(rb"^mproc: input (\d+), (\w+):", done.stderr, re.MULTILINE)
            self.assertEqual(told, [(b"%d" % (i + 1), bad[i]) for i in bad])

    def test_endless_loop_with_a_timeout(self):
        began = time.monotonic()
        done = call("ends", "a", "loop", "b", options=["--timeout", "0.5"])
        self.assertEqual((done.returncode, done.stdout), (1, b"a\nb\n"), done.stderr)
        self.assertRegex(done.stderr, rb"input 2, loop: .*(timed out|timeout|longer)")
        self.assertLess(time.monotonic() - began, PATIENCE / 2)

    def test_memory_hog(self):
        done = call("ends", "a", "hog", "b", options=["--memory", "150M"])
        self.assertEqual((done.returncode, done.stdout), (1, b"a\nb\n"), done.stderr)
        self.assertRegex(done.stderr, rb"input 2, hog: .*memory")

    def test_retries(self):
        for word in "once", "crash_once":
            done = call("ends", word, options=["--retries", "1"])
            self.check(done, word.encode() + b"\n")
            self.assertEqual(call("ends", word).returncode, 1)
        done = call("ends", "segv", options=["--retries", "4", "--json"])
        self.assertEqual(json.loads(done.stdout)["attempts"], 5)

    def test_fixed_sizes(self):
        for options in [], ["--retries", "1"]:
            done = call("swap_bytes", "abcd", "abc", "wxyz", "abcde", options=options)
            self.assertEqual((done.returncode, done.stdout), (2, b"dcba\nzyxw\n"), done.stderr)
            self.assertIn(b"input 2, abc: has 3 bytes", done.stderr)
        count = 20000
        lines = b"".join(b"%04d\n" % (i % 10000) for i in range(count))
        self.check(call("swap_bytes", stdin=lines),
                   b"".join(b"%s\n" % (b"%04d" % (i % 10000))[::-1] for i in range(count)))
        done = call("swap_bytes", "abcd", "fail", "efgh")
        self.assertEqual((done.returncode, done.stdout), (1, b"dcba\nhgfe\n"), done.stderr)

    def test_state_of_workers(self):
        ends = self.path("ends")
        done = call("counts", *map(str, range(50)), options=["-j3"], MAP_PLUGIN_ENDS=ends)
        self.check(done, b"".join(b"%d\n" % i for i in range(50)))
        with open(ends, encoding="utf-8") as file:
            counts = [int(line) for line in file]
        self.assertEqual((sum(counts), len(counts)), (50, 3))

    def test_initializer_that_fails(self):
        inputs = list(map(str, range(50)))
        for options in [], ["--unordered", "--json"], ["--halt", "soon,fail=1"]:
            done = call("no_worker", *inputs, options=["--joblog", self.path("log"), *options])
            self.check_error(done, "the initializer failed")
            self.assertEqual(done.stderr.count(b"mproc: "), 1, done.stderr)
            self.assertEqual(self.rows(), [])

    def test_refusals_of_a_library(self):
        self.check_error(call(""), "which function?", ":upper", "the input in capital letters")
        self.check_error(run(PLUGIN), "which function?", ":upper")
        self.check_error(call("uper", "a"), "no task 'uper'", "did you mean 'upper'?")
        self.check_error(call("zzzzzz", "a"), "no task 'zzzzzz'", ":upper")
        self.check_error(call("bare", "1"), "'bare' has no task descriptor", "MPROC_TASK(bare)")
        self.check_error(call("bad_magic", "1"), "magic", "MPROC_TASK")
        self.check_error(call("bad_version", "1"), "another version")
        self.check_error(run("/nonexistent.so:f", "a"), "/nonexistent.so", "No such file")
        self.check_error(run(self.put("text.so", b"text") + ":f", "a"), "text.so")

    def test_check(self):
        done = run("--check", f"{PLUGIN}:upper")
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertIn(b"fits: the input in capital letters\n", done.stdout)
        done = run("--check", f"{PLUGIN}:swap_bytes")
        self.assertIn(b"4 bytes each", done.stdout)
        for name in "bare", "bad_version", "zzzzzz", "":
            self.check_error(run("--check", f"{PLUGIN}:{name}"), status=1)
        self.check_error(run("--check", "/nonexistent.so:f"), status=1)

    def test_endless_input_takes_bounded_memory(self):
        for options in ["-j2"], ["-j2", "--unordered"]:
            with subprocess.Popen(["yes", "a line of some length"], stdout=subprocess.PIPE) as yes:
                program = start(*options, f"{PLUGIN}:echo", stdin=yes.stdout,
                                stdout=subprocess.PIPE)
                yes.stdout.close()
                seen, peak = 0, 0
                while seen < 8 << 20:
                    seen += len(os.read(program.stdout.fileno(), 1 << 20))
                    with open(f"/proc/{program.pid}/status", encoding="utf-8") as file:
                        peak = int(re.search(r"VmHWM:\s+(\d+)", file.read())[1])
                self.assertLess(peak, 400 << 10)
                program.send_signal(signal.SIGTERM)
                program.communicate(timeout=PATIENCE)
                self.assertEqual(program.returncode, 143)
                yes.kill()

    def peak_kib(self, inputs):
        program = start("-j2", "-a", self.put("inputs", inputs), f"{PLUGIN}:fills",
                        stderr=subprocess.DEVNULL)
        self.addCleanup(program.stdout.close)
        while os.read(program.stdout.fileno(), 1 << 20):
            continue
        _, status, usage = os.wait4(program.pid, 0)
        program.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(program.returncode, 0)
        return usage.ru_maxrss

    def test_large_results_take_bounded_memory(self):
        few, many = self.peak_kib(b"abcd\n"), self.peak_kib(b"abcd\n" * 1500)
        self.assertLess(many - few, 40 << 10)

    def test_results_come_while_input_is_open(self):
        program = start(f"{PLUGIN}:upper", stdin=subprocess.PIPE)
        for word in b"a", b"b", b"c":
            program.stdin.write(word + b"\n")
            program.stdin.flush()
            self.assertEqual(program.stdout.readline(), word.upper() + b"\n")
        out, errors = program.communicate(timeout=PATIENCE)
        self.assertEqual((out, errors, program.returncode), (b"", b"", 0))


class Halt(Case):
    def test_soon(self):
        script = "test $0 != bad || exit 3; sleep 0.3; echo $0"
        done = run("-j2", "--halt", "soon,fail=1", "--", "sh", "-c", script, ":::", "a", "bad",
                   *map(str, range(50)))
        self.assertEqual(done.returncode, 3)
        self.assertTrue(done.stdout.startswith(b"a\n"), done)
        self.assertLess(done.stdout.count(b"\n"), 10)

    def test_now(self):
        mark = f"8{os.getpid()}.25"
        began = time.monotonic()
        done = run("-j2", "--halt", "now,fail=1", "--", "sh", "-c",
                   "test $0 = bad || { sleep $0; exit; }; sleep 0.2; exit 4", ":::", mark, "bad",
                   "1", "2")
        self.assertEqual(done.returncode, 4)
        self.assertLess(time.monotonic() - began, PATIENCE / 2)
        self.assertTrue(wait_until(lambda: not processes_with(mark)))

    def test_number_and_share(self):
        def inputs(rule, script="exit $0"):
            done = run("-j1", "--halt", rule, "--joblog", self.path("log"), "--", "sh", "-c", script,
                       ":::", *"0120340506000000")
            return done.returncode, len(self.rows())

        self.assertEqual(inputs("never"), (6, 16))
        self.assertEqual(inputs("fail=2"), (2, 3))
        self.assertEqual(inputs("soon,fail=3"), (3, 5))
        self.assertEqual(inputs("50%"), (3, 5))
        self.assertEqual(inputs("soon,success=2"), (0, 4))
        self.assertEqual(inputs("soon,done=5"), (3, 5))
        self.assertEqual(inputs("1"), (1, 2))
        self.assertEqual(inputs("0"), (6, 16))

    def test_function(self):
        if not PLUGIN:
            self.skipTest("a static build loads no library")
        for when in "soon", "now":
            done = call("ends", "a", "fail", *map(str, range(1000)),
                        options=["-j1", "--halt", f"{when},fail=1"])
            self.assertEqual(done.returncode, 5, done.stderr)
            self.assertLess(done.stdout.count(b"\n"), 100)
            done = call("ends", "segv", options=["--halt", f"{when},fail=1"])
            self.assertEqual(done.returncode, 128 + signal.SIGSEGV)

    def test_soon_lets_attempts_go_on(self):
        """What runs goes on to its end: a failure that has another attempt is none."""
        script = ('test $0 = a && exit 3; echo x >>"$0"; test $(wc -l <"$0") -ge 2 || '
                  '{ sleep 0.3; eval "$1"; }; echo done')
        for number, failure in enumerate(["exit 1", "kill -9 $PPID; sleep 60"]):
            done = run("-j2", "--retries", "1", "--halt", "soon,fail=1", "--", "sh", "-c", script,
                       "{}", failure, ":::", self.path(str(number)), "a", "b", "c")
            self.assertEqual((done.returncode, done.stdout), (3, b"done\n"), done.stderr)
        if PLUGIN:
            done = call("ends", "slow_once", "fail", "b",
                        options=["-j2", "--retries", "1", "--halt", "soon,fail=1"])
            self.assertEqual((done.returncode, done.stdout), (5, b"slow_once\n"), done.stderr)

    def check_that_stopped_is_not_done(self, *words):
        done = run("-j2", "--retries", "1", "--halt", "now,success=1", "--joblog",
                   self.path("log"), *words)
        self.assertEqual((done.returncode, done.stdout), (0, b"a\n"), done.stderr)
        self.assertEqual([row[0] for row in self.rows()], ["2"])

    def test_attempt_that_is_not_made_is_no_success(self):
        script = ('if test $0 != a; then echo x >>$1; test $(wc -l <$1) -ge 2 || kill -9 $PPID; '
                  'sleep 60; fi; until test $(wc -l <$1) -ge 2; do sleep 0.01; done; echo a')
        self.check_that_stopped_is_not_done("--", "sh", "-c", script, "{}", self.put("mark", b""),
                                            ":::", "dies", "a")
        if PLUGIN:
            self.check_that_stopped_is_not_done(f"{PLUGIN}:ends", "slow_once", "a")


class Joblog(Case):
    def test_columns(self):
        self.check(run("-j2", "--joblog", self.path("log"), "--", "sh", "-c",
                       "sleep 0.2; printf abc; exit $0", ":::", "0", "3"), b"abcabc", 1)
        rows = self.rows()
        self.assertEqual([row[0] for row in rows], ["1", "2"])
        for row, code in zip(rows, "03"):
            self.assertEqual(len(row), 9)
            self.assertEqual(row[1], ":")
            self.assertRegex(row[2], r"\A\d{10}\.\d{3}\Z")
            self.assertLess(abs(float(row[2]) - time.time()), 60)
            self.assertTrue(0.15 < float(row[3]) < PATIENCE, row)
            self.assertEqual(row[4:8], ["0", "3", code, "0"])
            self.assertEqual(row[8], f"sh -c 'sleep 0.2; printf abc; exit $0' {code}")

    def test_odd_inputs_stay_one_row(self):
        run("-0", "--joblog", self.path("log"), "--", "true", "x{}", stdin=b"a\tb\0c\nd\0it's\0e f\0")
        commands = [row[8] for row in self.rows()]
        self.assertEqual(len(commands), 4)
        for command, text in zip(commands, ("xa\tb", "xc\nd", "xit's", "xe f")):
            shell = subprocess.run(["bash", "-c", "printf %s " + command.split(" ", 1)[1]],
                                   stdout=subprocess.PIPE, check=True)
            self.assertEqual(shell.stdout.decode(), text)

    def test_function(self):
        if not PLUGIN:
            self.skipTest("a static build loads no library")
        done = call("ends", "abc", "fail", "segv", options=["--joblog", self.path("log")])
        self.assertEqual(done.returncode, 2)
        rows = self.rows()
        self.assertEqual([row[4:8] for row in rows], [["3", "3", "0", "0"], ["4", "0", "5", "0"],
                                                      ["4", "0", "-1", "11"]])
        self.assertEqual(rows[0][8], f"{PLUGIN}:ends abc")

    def test_timeout(self):
        run("--timeout", "0.2", "--joblog", self.path("log"), "--", "sleep", ":::", "60")
        self.assertEqual(self.rows()[0][6:8], ["-1", "15"])

    def test_resume(self):
        log = ["--joblog", self.path("log")]
        self.check(run(*log, "--", "echo", ":::", "a", "b"), b"a\nb\n")
        more = ["--resume", "--", "echo", ":::", "a", "b", "c"]
        self.check(run(*log, "--dry-run", *more), b"echo c\n")
        self.check(run(*log, *more), b"c\n")
        self.check(run(*log, *more), b"")
        self.assertEqual([row[0] for row in self.rows()], ["1", "2", "3"])
        self.check(run(*log, "--", "echo", ":::", "z"), b"z\n")
        self.assertEqual(len(self.rows()), 1)

    def test_resume_without_a_log_yet(self):
        self.check(run("--joblog", self.path("log"), "--resume", "--", "echo", ":::", "a"), b"a\n")

    def test_resume_after_a_torn_row(self):
        log = ["--joblog", self.path("log")]
        run(*log, "--", "echo", ":::", "a", "b")
        with open(self.path("log"), "rb") as file:
            text = file.read()
        self.put("log", text[:-3])
        self.check(run(*log, "--resume", "--", "echo", ":::", "a", "b"), b"b\n")
        self.assertEqual([row[0] for row in self.rows()], ["1", "2"])

    def test_resume_after_a_full_disk(self):
        script = 'until test -e "$1$0"; do sleep 0.01; done; echo $0'
        words = ["--", "sh", "-c", script, "{}", self.path("go"), ":::", *"abcd"]
        log = self.path("log")
        program = start("-j4", "--unordered", "--joblog", log, *words)
        self.addCleanup(program.kill)
        self.put("goa", b"")
        self.assertTrue(wait_until(lambda: self.count_lines("log") == 2))
        size = os.path.getsize(log) + 20  # there is room for a part of a row
        resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        self.put("gob", b"")
        self.assertTrue(wait_until(lambda: os.path.getsize(log) == size))
        self.assertEqual([program.stdout.readline() for _ in "ab"], [b"a\n", b"b\n"])
        resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        self.put("goc", b"")
        self.put("god", b"")
        _, errors = program.communicate(timeout=PATIENCE)
        self.assertEqual(program.returncode, 255)
        self.assertEqual(errors.count(b"cannot write to " + log.encode()), 1, errors)
        self.check(run("--joblog", log, "--resume", *words), b"b\nc\nd\n")
        self.assertEqual([row[0] for row in self.rows()], ["1", "2", "3", "4"])

    def test_resume_with_other_inputs_is_an_error(self):
        log = ["--joblog", self.path("log")]
        run(*log, "--", "echo", ":::", "a", "b")
        self.check_error(run(*log, "--resume", "--", "echo", ":::", "x", "b"), "another command",
                         "echo x")

    def test_resume_with_other_inputs_runs_none(self):
        """Not those either that the log has not: they would be from the other list."""
        log = ["--joblog", self.path("log")]
        words = ["--", "touch", self.path("{}")]
        run(*log, *words, ":::", "a", "b", "c")
        with open(self.path("log"), "rb") as file:
            rows = file.read().splitlines(True)
        self.put("log", b"".join([*rows[:2], rows[3]]))
        for source in [":::", "a", "x", "z"], ["-a", self.put("list", b"a\nx\nz\n")]:
            last = source if source[0] == ":::" else []
            first = [] if last else source
            for mode in [], ["--dry-run"]:
                done = run(*log, "--resume", *mode, *first, *words, *last)
                self.check_error(done, "another command for input 3", f"touch {self.path('c')}",
                                 f"touch {self.path('z')}")
                self.assertEqual(done.stderr.count(b"\n"), 1)
        self.assertFalse(os.path.exists(self.path("x")))
        with open(self.path("list"), "rb") as file:
            self.check_error(run(*log, "--resume", *words, stdin=file), "another command")
        self.assertFalse(os.path.exists(self.path("x")))
        self.put("list", b"ignored\na\nb\nc\nd\n")
        with open(self.path("list"), "rb", buffering=0) as file:
            file.seek(8)
            self.check(run(*log, "--resume", "--dry-run", *words, stdin=file),
                       f"touch {self.path('b')}\ntouch {self.path('d')}\n".encode())

    def test_file_that_is_no_joblog(self):
        for text in b"hello\n", b"hello", HEADER.encode() + b"\nnonsense\n":
            self.put("log", text)
            self.check_error(run("--joblog", self.path("log"), "--resume", "--", "echo", ":::", "a"),
                             "log", "is not of a joblog")
            with open(self.path("log"), "rb") as file:
                self.assertEqual(file.read(), text)
        self.check_error(run("--joblog", "/nonexistent/log", "--", "echo", ":::", "a"),
                         "/nonexistent/log")

    def test_interrupted_run_is_resumed(self):
        log = ["-j2", "--joblog", self.path("log")]
        words = ["--", "sh", "-c", "sleep 0.05; echo $0", ":::", *map(str, range(60))]
        program = start(*log, *words)
        self.assertTrue(wait_until(lambda: self.count_lines("log") > 6))
        program.send_signal(signal.SIGTERM)
        first, _ = program.communicate(timeout=PATIENCE)
        self.assertEqual(program.returncode, 143)
        second = run(*log, "--resume", *words)
        self.assertEqual(second.returncode, 0)
        self.assertEqual((first + second.stdout).decode().split(), list(map(str, range(60))))


    def check_signal_to_all(self, mark, script, program_first):
        """False: the machine was so slow that it says nothing."""
        program = start("-j2", "--joblog", self.path("log"), "--", "sh", "-c",
                        f"test $0 = 0 && exit; {script}", ":::", "0", mark, mark, mark)
        self.addCleanup(program.communicate)
        self.addCleanup(program.kill)
        self.assertTrue(wait_until(lambda: len(processes_with(mark, False)) >= 4 and
                                   self.count_lines("log") == 2))
        children = descendants(program.pid)[::-1]
        began = time.monotonic()
        for pid in [program.pid, *children] if program_first else [*children, program.pid]:
            if pid == program.pid and not program_first:
                time.sleep(0.05)
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue  # died with another
        slow = time.monotonic() - began > 0.15
        _, errors = program.communicate(timeout=PATIENCE)
        self.assertEqual(program.returncode, 143, errors)
        if not slow:
            self.assertEqual([row[0] for row in self.rows()], ["1"], errors)
            self.assertEqual(errors.count(b"\n"), 1, errors)
        return not slow

    def test_what_a_signal_to_all_ended_is_run_again(self):
        """As a service manager sends it: to commands, workers and the program, in any order."""
        scripts = ["sleep $0", "trap 'exit 143' TERM; while :; do sleep $0; done"]
        for way, script in enumerate(scripts):
            for program_first in False, True:
                mark = f"1{os.getpid()}.{way}{int(program_first)}"
                self.assertTrue(any(self.check_signal_to_all(mark, script, program_first)
                                    for _ in range(20)))

    def test_function_that_a_signal_to_all_ended_is_run_again(self):
        if not PLUGIN:
            self.skipTest("a static build loads no library")
        for retries in "0", "2":
            program = start("-j2", "--retries", retries, "--joblog", self.path(f"log{retries}"),
                            f"{PLUGIN}:wait_ms", "0", "600000", "600001")
            self.addCleanup(program.communicate)
            self.addCleanup(program.kill)
            self.assertTrue(wait_until(lambda: self.count_lines(f"log{retries}") == 2))
            os.kill(program.pid, signal.SIGSTOP)  # its turn comes last
            for pid in descendants(program.pid)[::-1]:
                os.kill(pid, signal.SIGTERM)
            os.kill(program.pid, signal.SIGTERM)
            os.kill(program.pid, signal.SIGCONT)
            _, errors = program.communicate(timeout=PATIENCE)
            self.assertEqual(program.returncode, 143, errors)
            self.assertEqual([row[0] for row in self.rows(f"log{retries}")], ["1"], errors)

    def test_signal_of_the_command_itself_is_logged(self):
        done = run("--joblog", self.path("log"), "--", "sh", "-c", "kill -TERM $$", ":::", "a")
        self.assertEqual(done.returncode, 1)
        self.assertEqual([row[6:8] for row in self.rows()], [["-1", "15"]])


class Interrupts(Case):
    def begin(self, mark, *arguments, count=2, **streams):
        program = start(*arguments, **streams)
        self.addCleanup(program.wait)
        self.addCleanup(program.kill)
        self.assertTrue(wait_until(lambda: len(processes_with(mark, False)) >= count))
        return program

    def check_end(self, program, mark, number, to_group=False):
        began = time.monotonic()
        if to_group:
            os.killpg(program.pid, number)
        else:
            program.send_signal(number)
        _, errors = program.communicate(timeout=PATIENCE)
        self.assertLess(time.monotonic() - began, PATIENCE / 2)
        self.assertEqual(program.returncode, 128 + number, errors)
        self.assertEqual(errors.count(b"\n"), 1, errors)
        self.assertTrue(errors.startswith(b"mproc: "), errors)
        self.assertTrue(wait_until(lambda: not processes_with(mark)), processes_with(mark))

    def test_commands_and_all_they_started_are_killed(self):
        for number in signal.SIGINT, signal.SIGTERM:
            for to_group in False, True:
                mark = f"9{os.getpid()}.{number}{int(to_group)}"
                program = self.begin(mark, "-j2", "--", "sh", "-c", "sleep $0 & sleep $0; echo no",
                                     ":::", mark, mark, mark)
                self.check_end(program, mark, number, to_group)

    def test_every_start_method(self):
        for method in METHODS:
            mark = f"6{os.getpid()}.{len(method)}"
            program = self.begin(mark, "--start-method", method, "-j2", "--", "sleep", ":::", mark,
                                 mark)
            self.check_end(program, mark, signal.SIGINT)

    def test_commands_that_ignore_it(self):
        mark = f"5{os.getpid()}.5"
        program = self.begin(mark, "-j2", "--", "sh", "-c",
                             "trap '' TERM INT; while :; do sleep 0.1; done", ":::", mark, mark)
        self.check_end(program, mark, signal.SIGTERM)

    def test_child_that_ignores_it_goes_with_its_command(self):
        mark = f"1{os.getpid()}.5"
        script = "(trap '' TERM INT; sleep $0; :) & wait"
        for number in signal.SIGINT, signal.SIGTERM:
            program = self.begin(mark, "--", "sh", "-c", script, ":::", mark, count=3)
            self.addCleanup(lambda: [os.kill(pid, 9) for pid in processes_with(mark)])
            self.check_end(program, mark, number)

    def test_child_has_time_to_clean_up(self):
        mark = f"1{os.getpid()}.75"
        script = ("(trap 'sleep 0.05; echo >\"$1\"; exit' TERM; echo >\"$1.ready\"; "
                  "while :; do sleep 0.01; done) & wait")
        program = self.begin(mark, "--", "sh", "-c", script, "{}", self.path("cleaned"), ":::", mark,
                             count=2)
        self.assertTrue(wait_until(lambda: os.path.exists(self.path("cleaned.ready"))))
        self.check_end(program, mark, signal.SIGTERM)
        self.assertTrue(os.path.exists(self.path("cleaned")))

    def test_function_and_what_it_started(self):
        if not PLUGIN:
            self.skipTest("a static build loads no library")
        mark = f"4{os.getpid()}.5"
        for number in signal.SIGINT, signal.SIGTERM:
            program = self.begin(mark, "-j2", f"{PLUGIN}:leaves_child", mark, mark)
            self.check_end(program, mark, number)

    def test_while_it_waits_for_input(self):
        program = start("--", "echo", stdin=subprocess.PIPE)
        program.stdin.write(b"a\n")
        program.stdin.flush()
        self.assertEqual(program.stdout.readline(), b"a\n")
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=PATIENCE)
        self.assertEqual(program.returncode, 130)
        self.assertEqual(errors.count(b"\n"), 1, errors)

    def test_while_nobody_reads_its_output(self):
        for number in signal.SIGINT, signal.SIGTERM:
            reading, writing = os.pipe()
            self.addCleanup(os.close, reading)
            program = start("-j1", "--", "head", "-c", "1000000", ":::", *["/dev/zero"] * 4,
                            stdout=writing)
            self.addCleanup(program.kill)
            os.close(writing)
            self.assertTrue(wait_until(lambda: is_full(reading)))
            program.send_signal(number)
            _, errors = program.communicate(timeout=PATIENCE)
            self.assertEqual(program.returncode, 128 + number, errors)
            self.assertEqual(errors.count(b"\n"), 1, errors)

    def test_while_it_reads_an_endless_line(self):
        with open("/dev/zero", "rb") as zeros:
            program = start("--", "echo", stdin=zeros)
        self.addCleanup(program.kill)
        self.assertTrue(wait_until(lambda: handles(program.pid, signal.SIGTERM)))
        program.send_signal(signal.SIGTERM)
        try:
            program.communicate(timeout=PATIENCE)
        finally:
            program.kill()
        self.assertEqual(program.returncode, 143)

    def test_endless_line_is_an_error(self):
        with open("/dev/zero", "rb") as zeros:
            program = start("--", "echo", stdin=zeros)
        self.addCleanup(program.kill)
        _, errors = program.communicate(timeout=PATIENCE)
        self.assertEqual(program.returncode, 255)
        self.assertRegex(errors, rb"\Amproc: standard input: .* -0\n\Z")

    def test_killed_program_takes_its_commands_along(self):
        mark = f"3{os.getpid()}.5"
        program = self.begin(mark, "-j2", "--", "sleep", ":::", mark, mark)
        program.kill()
        program.communicate(timeout=PATIENCE)
        self.assertTrue(wait_until(lambda: not processes_with(mark)))

    def test_ctrl_c_of_a_terminal(self):
        mark = f"2{os.getpid()}.5"
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(PROGRAM, [PROGRAM, "map", "-j2", "--", "sleep", ":::", mark, mark])
        self.addCleanup(os.close, terminal)
        self.assertTrue(wait_until(lambda: len(processes_with(mark, False)) >= 2))
        os.write(terminal, b"\x03")
        ended = []
        self.assertTrue(wait_until(lambda: ended.append(os.waitpid(pid, os.WNOHANG)) or ended[-1][0]))
        self.assertEqual(os.waitstatus_to_exitcode(ended[-1][1]), 130)
        self.assertTrue(wait_until(lambda: not processes_with(mark)))


class Output(Case):
    def test_json_of_commands(self):
        script = 'echo "a\tb\\"$0"; printf "\\377" >&2; exit $0'
        done = run("--json", "--", "sh", "-c", script, ":::", "0", "2")
        self.assertEqual((done.returncode, done.stderr), (1, b""))
        for line, code in zip(done.stdout.splitlines(), (0, 2)):
            root = json.loads(line)
            self.assertEqual((root["seq"], root["input"]), (1 + (code > 0), str(code)))
            self.assertEqual((root["ok"], root["exit"], root["signal"]), (code == 0, code, 0))
            self.assertEqual(root["stdout"], f'a\tb"{code}\n')
            self.assertEqual(base64.b64decode(root["stderr_base64"]), b"\xff")
            self.assertEqual(root["attempts"], 1)
            self.assertGreater(root["seconds"], 0)
        self.assertEqual(done.stdout.count(b"\n"), 2)

    def test_json_of_functions(self):
        if not PLUGIN:
            self.skipTest("a static build loads no library")
        done = call("ends", stdin=b"caf\xc3\xa9 \x01\n\xff\nfail\nsegv", options=["--json"])
        self.assertEqual((done.returncode, done.stderr), (2, b""))
        text, raw, failed, killed = map(json.loads, done.stdout.splitlines())
        self.assertEqual((text["input"], text["result"]), ("caf\u00e9 \x01", "caf\u00e9 \x01"))
        self.assertEqual((raw["input_base64"], raw["result_base64"]), ("/w==", "/w=="))
        self.assertEqual((failed["ok"], failed["exit"]), (False, 5))
        self.assertIn("does not like fail", failed["error"])
        self.assertEqual((killed["exit"], killed["signal"]), (None, 11))
        self.assertEqual(json.loads(call("prints", "a", options=["--json"]).stdout)["stdout"],
                         "one a\ntwo\nthree")

    def test_dry_run(self):
        done = run("--dry-run", "--", "touch", self.path("{}"), ":::", "a", "b c")
        self.check(done, f"touch {self.folder}/a\ntouch '{self.folder}/b c'\n".encode())
        self.assertEqual(os.listdir(self.folder), [])
        self.check(run("--dry-run", "--shell", "--", "wc <{}", stdin=b"a b\nc\n"),
                   b"wc <'a b'\nwc <c\n")
        if PLUGIN:
            self.check(run("--dry-run", f"{PLUGIN}:echo", "a"), f"{PLUGIN}:echo a\n".encode())

    def progress(self, words, until, columns=0):
        """What a terminal sees of a run that goes on until that is seen."""
        controller, terminal = pty.openpty()
        self.addCleanup(os.close, controller)
        if columns:
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        program = start("--progress", *words, stderr=terminal)
        timer = threading.Timer(PATIENCE, program.kill)
        timer.start()
        self.addCleanup(timer.cancel)
        self.addCleanup(program.kill)
        os.close(terminal)
        seen = b""
        try:
            while chunk := os.read(controller, 4096):
                seen += chunk
                if re.search(until, seen):
                    self.put("go", b"")
        except OSError:
            pass  # the way a terminal says that everybody closed it
        self.assertEqual(program.communicate(timeout=PATIENCE)[0], b"")
        self.assertEqual(program.returncode, 0)
        return seen

    def test_progress_on_a_terminal_only(self):
        script = 'until test $0 = first || test -e "$0"; do sleep 0.01; done'
        words = ["-j1", "--", "sh", "-c", script, ":::", "first", self.path("go")]
        self.check(run("--progress", *words[:-1]), b"")
        seen = self.progress(words, rb" 50%  1 done of 2.*ETA 0:0")
        self.assertIn(b"[###############...............]  50%  1 done of 2", seen)
        self.assertTrue(seen.endswith(b"\r\x1b[K"), seen)

    def test_progress_on_a_narrow_terminal(self):
        script = 'until test $0 = first || test -e "$0"; do sleep 0.01; done'
        for columns in 10, 40, 50:
            words = ["-j1", "--", "sh", "-c", script, ":::", "first", self.path("go")]
            seen = self.progress(words, rb"50%  1", columns)
            os.remove(self.path("go"))
            lines = seen.split(b"\r\x1b[K")
            self.assertGreater(len(lines), 2)
            self.assertLess(max(map(len, lines)), columns, lines)

    def test_progress_of_what_is_resumed(self):
        script = 'until test $0 != "$1" || test -e "$0"; do sleep 0.01; done'
        go = self.path("go")
        words = ["--joblog", self.path("log"), "--", "sh", "-c", script, "{}", go, ":::"]
        run(*words, "a", "b", "c")
        seen = self.progress(["--resume", *words, "a", "b", "c", go], rb" 75%  3 done of 4")
        self.assertTrue(os.path.exists(go), seen)

    def test_stats(self):
        done = run("--stats", "--", "sh", "-c", "exit $0", ":::", "0", "1")
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertRegex(done.stderr, rb"mproc: 2 inputs in \d+\.\d+ s, \d+/s; 1 failed\n")

    def test_output_that_does_not_wait(self):
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        program = start("--", "head", "-c", "1000000", ":::", *["/dev/zero"] * 3, stdout=writing)
        os.close(writing)
        self.assertTrue(wait_until(lambda: is_full(reading)))
        time.sleep(0.1)  # it finds that there is no room
        with open(reading, "rb") as file:
            self.assertEqual(len(file.read()), 3000000)
        _, errors = program.communicate(timeout=PATIENCE)
        self.assertEqual((program.returncode, errors), (0, b""))

    def test_streams_that_are_closed(self):
        def run_without(close, *words):
            script = f'exec "$0" map --joblog "$@" {close}'
            return subprocess.run(["sh", "-c", script, PROGRAM, self.path("log"), *words],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, env=environment({}), timeout=30)

        for close in ">&-", "<&- >&-":
            done = run_without(close, "--", "echo", ":::", "a")
            self.check_error(done, "cannot write to standard output: Bad file descriptor")
            self.assertEqual(self.rows(), [])
        done = run_without("2>&-", "--", "sh", "-c", "echo $0; echo no >&2", ":::", "a")
        self.check(done, b"a\n")
        self.assertEqual(len(self.rows()), 1)
        self.check_error(run_without("<&-", "--", "echo"), "standard input: Bad file descriptor")
        self.check(run_without("<&- 2>&-", "--", "echo", ":::", "a"), b"a\n")

    def test_full_disk_whatever_is_printed(self):
        ways = [["--help"], ["--dry-run", "--", "echo", ":::", "a"],
                ["--json", "--", "true", ":::", "a"],
                ["--halt", "now,fail=1", "--", "sh", "-c", "echo a; exit 3", ":::", "a"],
                ["--", "head", "-c", "5000000", ":::", "/dev/zero"]]
        if PLUGIN:
            ways += [["--check", f"{PLUGIN}:upper"], [f"{PLUGIN}:upper", "a"]]
        for words in ways:
            with open("/dev/full", "wb") as full:
                program = start(*words, stdout=full)
                _, errors = program.communicate(timeout=PATIENCE)
            self.assertEqual(program.returncode, 255, (words, errors))
            self.assertEqual(errors.count(b"\n"), 1, (words, errors))
            # a stream of musl's knows of an earlier error that there was one, and not which
            self.assertIn(b"cannot write to standard output", errors)

    def test_full_disk_and_reader_that_went_away(self):
        with open("/dev/full", "wb") as full:
            program = start("--", "echo", ":::", "a", stdout=full)
            _, errors = program.communicate(timeout=PATIENCE)
        self.assertEqual(program.returncode, 255)
        self.assertIn(b"cannot write to standard output: No space", errors)
        reading, writing = os.pipe()
        os.close(reading)
        program = start("--", "echo", ":::", *map(str, range(10)), stdout=writing)
        os.close(writing)
        _, errors = program.communicate(timeout=PATIENCE)
        self.assertEqual(program.returncode, 255)
        self.assertEqual(errors.count(b"\n"), 1, errors)


class Mistakes(Case):
    def test_options(self):
        words = {
            ("--jbs", "3"): ["--jbs", "did you mean '--jobs'?"],
            ("-x",): ["unknown option '-x'", "mproc map --help"],
            ("-j",): ["'--jobs' needs a value"],
            ("-j0", "--", "true"): ["--jobs", "'0'", "1 to 1024"],
            ("-jx", "--", "true"): ["--jobs", "'x'"],
            ("--timeout", "0", "--", "true"): ["--timeout", "'0'"],
            ("--timeout", "-1", "--", "true"): ["--timeout"],
            ("--timeout", "5x", "--", "true"): ["--timeout"],
            ("--timeout", "nan", "--", "true"): ["--timeout"],
            ("--memory", "5Q", "--", "true"): ["--memory"],
            ("--retries", "-1", "--", "true"): ["--retries"],
            ("--halt", "sometimes", "--", "true"): ["--halt", "'sometimes'"],
            ("--halt", "fail=0", "--", "true"): ["--halt"],
            ("--halt", "fail=101%", "--", "true"): ["--halt"],
            ("--start-method", "frok", "--", "true"): ["--start-method", "forkserver"],
            ("--resume", "--", "true"): ["--joblog"],
            ("--shell", "x.so:f"): ["--shell", "commands"],
            ("--raw", "--", "true"): ["--raw", "functions"],
            ("--json=yes", "--", "true"): ["'--json' takes no value"],
            ("-a", "/nonexistent", "--", "true"): ["/nonexistent", "No such file"],
            ("-a", "/tmp", "--", "true"): ["/tmp", "directory"],
            ("-a", "x", "--", "true", ":::", "a"): ["not both"],
            ("-0", "--", "true", ":::", "a"): ["--null"],
            ("--check", "--", "true"): ["--check"],
            ("--",): ["no command"],
            ("--", ":::", "a"): ["no command"],
            (): ["LIBRARY:FUNCTION"],
            ("--", "true", ":::", "a", ":::", "b"): ["stands twice"],
        }
        if PLUGIN:
            words["true", "a"] = ["'true' is no LIBRARY:FUNCTION", "mproc map -- true"]
        for arguments, expected in words.items():
            self.check_error(run(*arguments), *expected)

    def test_bad_variable(self):
        self.check_error(run("--", "true", ":::", "a", MPROC_START_METHOD="bogus"),
                         "MPROC_START_METHOD")

    def test_values(self):
        for option in ("-j2", "-j100%", "-j1%", "--timeout=10", "--timeout=.5s", "--timeout=3m",
                       "--timeout=1.5h", "--memory=1G", "--memory=500m", "--memory=2GiB",
                       "--halt=never", "--halt=now,fail=3%", "--halt=25%"):
            self.check(run(option, "--", "echo", ":::", "a"), b"a\n")


class Completion(unittest.TestCase):
    def complete(self, *words, **variables):
        script = ('source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _mproc; '
                  'printf "%s\\n" "${COMPREPLY[@]}"')
        done = subprocess.run(["bash", "-c", script, os.path.join(COMPLETION, "mproc.bash"), *words],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=True,
                              env={**os.environ, **variables})
        self.assertEqual(done.stderr, "")
        return done.stdout.split()

    def test_bash(self):
        subprocess.run(["bash", "-n", os.path.join(COMPLETION, "mproc.bash")], check=True)
        self.assertEqual(self.complete("mproc", "ma"), ["map"])
        self.assertEqual(self.complete("mproc", "map", "--jo"), ["--jobs", "--joblog"])
        self.assertEqual(self.complete("mproc", "map", "--start-method", "s"), ["spawn"])
        self.assertIn("true", self.complete("mproc", "map", "-j", "2", "--", "tru"))
        if PLUGIN and shutil.which("nm"):
            self.assertEqual(self.complete("mproc", "map", PLUGIN, ":", "upp"), ["upper"])

    def test_names_of_a_library_are_not_executed(self):
        with tempfile.TemporaryDirectory() as folder:
            mark, nm = os.path.join(folder, "mark"), os.path.join(folder, "nm")
            with open(nm, "w", encoding="utf-8") as file:
                file.write("#!/bin/sh\ncat <<'END'\n1 D mproc_task_good_1\n"
                           f"2 D mproc_task_$(touch${{IFS}}{mark})\nEND\n")
            os.chmod(nm, 0o755)
            found = self.complete("mproc", "map", nm, ":", "",
                                  PATH=f"{folder}:{os.environ['PATH']}")
            self.assertEqual((found, os.path.exists(mark)), (["good_1"], False))

    def test_every_option(self):
        text = subprocess.run([PROGRAM, "map", "--help"], stdout=subprocess.PIPE, text=True,
                              check=True).stdout
        options = set(re.findall(r"(?<= )--[a-z-]+", text.split("Inputs:\n")[1].split("In a ")[0]))
        self.assertGreater(len(options), 18)
        self.assertEqual(set(self.complete("mproc", "map", "--")) - {"--"}, options)
        with open(os.path.join(COMPLETION, "_mproc"), encoding="utf-8") as file:
            zsh = file.read()
        for option in options:
            self.assertIn(option, zsh)

    @unittest.skipUnless(shutil.which("zsh"), "no zsh")
    def test_zsh(self):
        subprocess.run(["zsh", "-n", os.path.join(COMPLETION, "_mproc")], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--completion", required=True)
    parser.add_argument("--plugin", default="")
    parser.add_argument("cases", nargs="*")
    words = parser.parse_intermixed_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # is ignored in the background of a script
    PROGRAM, PLUGIN, COMPLETION = (path and os.path.abspath(path) for path in
                                   (words.program, words.plugin, words.completion))
    unittest.main(argv=[sys.argv[0], *words.cases], verbosity=1)
