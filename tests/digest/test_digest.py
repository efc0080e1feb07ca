#!/usr/bin/env python3
"""The digest job: odd trees, odd names, and workers that die. Usage: test_digest.py MPROC_DIGEST"""
import hashlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

PROGRAM = ""
NOBODY = 65534
METHODS = ["fork", "spawn", "forkserver"]


def command_arguments(variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MPROC_")}
    environment.update(variables)
    return {"stdin": subprocess.DEVNULL, "env": environment}


def run(*arguments, user=None, stdout=subprocess.PIPE, **variables):
    return subprocess.run([PROGRAM, *arguments], stdout=stdout, stderr=subprocess.PIPE, user=user,
                          timeout=120, **command_arguments(variables))


def start(*arguments, **variables):
    return subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            start_new_session=True, **command_arguments(variables))


def state(pid):
    """The letter and the parent of a process, or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return (fields[0], int(fields[1]))


def asked_by(pid, program):
    """Whether it is the program's child, or the child of the server that runs the same program."""
    status = state(pid)
    if not status or status[0] == "Z":
        return False
    if status[1] == program:
        return True
    try:
        with open(f"/proc/{status[1]}/comm", encoding="utf-8") as file:
            return file.read().startswith("mproc:forkserv")
    except OSError:
        return False


def workers_of(parent):
    """Pids of its workers, told by their names."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or not asked_by(entry, parent):
            continue
        try:
            with open(f"/proc/{entry}/comm", encoding="utf-8") as file:
                if "digest-" in file.read():
                    found.append(int(entry))
        except OSError:
            pass
    return found


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Tree(unittest.TestCase):
    def setUp(self):
        self.root = os.fsencode(tempfile.mkdtemp(prefix="mproc-digest-test-"))
        os.chmod(self.root, 0o755)
        self.addCleanup(shutil.rmtree, self.root)

    def path(self, *names):
        return os.path.join(self.root, *names)

    def put(self, name, data=b"data"):
        with open(self.path(name), "wb") as file:
            file.write(data)

    def put_sparse(self, name, size_bytes):
        with open(self.path(name), "wb") as file:
            file.truncate(size_bytes)

    def check_agreement(self, done, count):
        out = done.stdout.decode()
        self.assertEqual(done.returncode, 0, (out, done.stderr))
        self.assertTrue(out.startswith("start methods: fork (default), spawn, forkserver\n"), out)
        for method in METHODS + ["sha256sum"]:
            row = re.search(rf"^{method} +\d+ .*$", out, re.MULTILINE)
            self.assertIsNotNone(row, out)
            self.assertEqual(int(row.group().split(" s ")[1].split()[0]), count, out)
        self.assertTrue(out.endswith(f"all {count} digests agree with sha256sum\n"), out)
        return out


class Files(Tree):
    NAMES = [b"plain", b"two words", b"new\nline", b"\n", b"-rf", b"--zero", b"back\\slash", b"*",
             b"'", b'"', b"$(id)", b"\x01\x1b[31m", b"caf\xc3\xa9", b"\xff\xfe not UTF-8",
             b".hidden", b"a" * 255]

    def test_names_and_sizes(self):
        for i, name in enumerate(self.NAMES):
            self.put(name, b"%d" % i)
        self.put(b"empty", b"")
        self.put(b"large", os.urandom(3 << 20))
        self.put(b"buffer", bytes(1 << 17))
        deep = self.path(*[b"d" * 200] * 15)
        os.makedirs(deep)
        with open(os.path.join(deep, b"file"), "wb") as file:
            file.write(b"deep")
        done = run(self.root)
        self.check_agreement(done, len(self.NAMES) + 4)
        self.assertEqual(done.stderr, b"")

    def test_default_follows_the_variable(self):
        self.put(b"file")
        out = run(self.root, MPROC_START_METHOD="spawn").stdout.decode()
        self.assertIn("spawn (default)", out)
        self.assertIn("all 1 digests agree", out)

    def test_only_regular_files_and_no_links(self):
        self.put(b"file")
        os.mkdir(self.path(b"below"))
        os.symlink(b"file", self.path(b"link"))
        os.symlink(b"nowhere", self.path(b"dangling"))
        os.symlink(b"..", self.path(b"below", b"loop"))
        os.symlink(b"self", self.path(b"self"))
        os.mkfifo(self.path(b"pipe"))
        self.check_agreement(run(self.root), 1)
        link = self.path(b"below", b"root")
        os.symlink(self.root, link)
        self.check_agreement(run(link), 1)

    def test_more_files_than_fit_on_a_command_line(self):
        for i in range(3000):
            self.put(b"%0180d" % i, b"%d" % i)
        self.check_agreement(run(self.root), 3000)

    def test_directory_without_files(self):
        done = run(self.root)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertIn(b"nothing to compare", done.stdout)

    def test_unreadable(self):
        self.put(b"file")
        self.put(b"secret\nfile")
        os.chmod(self.path(b"secret\nfile"), 0)
        os.mkdir(self.path(b"secrets"), 0)
        self.addCleanup(os.chmod, self.path(b"secrets"), 0o755)
        user = NOBODY if os.geteuid() == 0 else None
        try:
            done = run(self.root, user=user)
        except PermissionError:
            self.skipTest("the program cannot be executed by another user")
        out = self.check_agreement(done, 1)
        self.assertIn("1 file could not be read", out)
        self.assertIn("1 directory could not be read", out)
        self.assertIn(b"secret\\012file: Permission denied", done.stderr)
        self.assertIn(b"secrets: Permission denied", done.stderr)

    def test_file_that_changes_meanwhile(self):
        self.put(b"file")
        self.put(b"log", b"")
        stop = threading.Event()

        def write():
            with open(self.path(b"log"), "ab", buffering=0) as file:
                while not stop.wait(0.0005):
                    file.write(b"line\n")

        writer = threading.Thread(target=write)
        writer.start()
        try:
            done = run(self.root)
        finally:
            stop.set()
            writer.join()
        self.assertEqual(done.returncode, 0, done)
        self.assertIn(b"changed meanwhile: ", done.stderr)
        self.assertIn(b"1 file changed meanwhile and left out\n", done.stdout)
        self.assertTrue(done.stdout.endswith(b"all 1 digests agree with sha256sum\n"), done.stdout)


class Reference(Tree):
    def fake(self, script):
        folder = tempfile.mkdtemp(prefix="mproc-digest-path-")
        self.addCleanup(shutil.rmtree, folder)
        with open(os.path.join(folder, "sha256sum"), "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\n" + script)
        os.chmod(file.name, 0o755)
        self.put(b"file", b"data")
        return run(self.root, PATH=folder)

    def test_other_digest(self):
        wrong = hashlib.sha256(b"other").hexdigest()
        done = self.fake(f'shift 3\nprintf "{wrong} *%s\\0" "$1"\n')
        self.assertEqual(done.returncode, 1, done)
        self.assertIn(b"disagreement about ", done.stderr)
        self.assertIn(wrong.encode(), done.stderr)
        self.assertIn(hashlib.sha256(b"data").hexdigest().encode(), done.stderr)
        self.assertNotIn(b"agree with sha256sum", done.stdout)

    def test_no_digest(self):
        done = self.fake("exit 1\n")
        self.assertEqual(done.returncode, 1, done)
        self.assertIn(b"no digest", done.stderr)

    def test_nonsense(self):
        for script in "echo nonsense\n", "exit 127\n", "kill -KILL $$\n":
            done = self.fake(script)
            self.assertEqual(done.returncode, 1, done)
            self.assertIn(b"sha256sum", done.stderr)
        self.assertIn(b"killed by SIGKILL", done.stderr)

    def test_missing(self):
        self.put(b"file")
        done = run(self.root, PATH="/nonexistent")
        self.assertEqual(done.returncode, 1, done)
        self.assertIn(b"sha256sum", done.stderr)


class Ends(Tree):
    """What happens when somebody dies: the large files keep the workers busy meanwhile."""

    def begin(self, **variables):
        for name in b"one", b"two", b"three", b"four":
            self.put_sparse(name, 1 << 30)
        program = start(self.root, **variables)
        self.addCleanup(program.stderr.close)
        self.addCleanup(program.stdout.close)
        self.addCleanup(program.wait)
        self.addCleanup(program.kill)
        self.assertTrue(wait_until(lambda: workers_of(program.pid), 20))
        time.sleep(0.05)
        return program

    def test_killed_worker_is_reported(self):
        for method in METHODS:
            program = self.begin(MPROC_START_METHOD=method)
            for pid in workers_of(program.pid):
                os.kill(pid, signal.SIGKILL)
            _, errors = program.communicate(timeout=100)
            self.assertEqual(program.returncode, 1, errors)
            self.assertIn(b"killed by SIGKILL", errors)
            # a machine that is busy may not have run its entry yet: then it is a start that failed
            self.assertIn(b"digest-" + method.encode(), errors)

    def check_workers_end_with(self, number):
        for method in METHODS:
            program = self.begin(MPROC_START_METHOD=method)
            workers = workers_of(program.pid)
            os.kill(program.pid, number)
            program.wait(timeout=10)
            self.assertEqual(program.returncode, -number)
            self.assertTrue(wait_until(lambda: all((state(pid) or "Z")[0] == "Z"
                                                   for pid in workers), 5), method)

    def test_workers_end_with_their_parent(self):
        self.check_workers_end_with(signal.SIGKILL)

    def test_interrupt_ends_everything(self):
        self.check_workers_end_with(signal.SIGINT)


class Command(Tree):
    def test_progress_on_a_terminal_only(self):
        self.put(b"file")
        self.assertEqual(run(self.root).stderr, b"")
        controller, terminal = pty.openpty()
        program = subprocess.Popen([PROGRAM, self.root], stdout=subprocess.PIPE, stderr=terminal,
                                   **command_arguments({}))
        os.close(terminal)
        seen = b""
        try:
            while chunk := os.read(controller, 4096):
                seen += chunk
        except OSError:
            pass  # the way a terminal says that everybody closed it
        os.close(controller)
        out, _ = program.communicate(timeout=60)
        self.assertEqual(program.returncode, 0)
        self.assertNotIn(b"\r", out)
        self.assertIn(b"of 1 files", seen)
        self.assertTrue(seen.endswith(b" \r"), seen)

    def test_usage(self):
        done = run("--help")
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertTrue(done.stdout.startswith(b"Usage: mproc-digest [DIR]\n"))
        self.put(b"file")
        for arguments in ["--nonsense"], ["a", "b"], ["/nonexistent"], [self.path(b"file")], [""]:
            done = run(*arguments)
            self.assertEqual((done.returncode, done.stdout), (2, b""), arguments)
            self.assertNotEqual(done.stderr, b"")

    def test_full_disk(self):
        self.put(b"file")
        with open("/dev/full", "wb") as full:
            done = run(self.root, stdout=full)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"cannot write to standard output", done.stderr)


if __name__ == "__main__":
    PROGRAM = sys.argv[1]
    unittest.main(argv=sys.argv[:1], verbosity=1)
