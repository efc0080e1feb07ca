#!/usr/bin/env python3
"""What does `mproc map` make of a shell's work, beside xargs and GNU parallel?

  bench_map [--json FILE] [DIR]

In one run, interleaved, with as many processes as there are CPUs: calls of a C function that does
nothing, per line of input; commands that do nothing, one per line, beside xargs -P and GNU parallel;
each file of DIR (/usr/include) compressed by zlib, and its SHA-256, beside xargs -P with 32 files a
command, and one process. All print the same lines, which is checked. A round before warms up: the
files are in memory. Ratios are medians of those of each round; the targets are those of
docs/design/targets.md. BENCH_ROUNDS=N makes fewer rounds than 15.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 15
CALLS = 2_000_000
COMMANDS, PARALLEL_COMMANDS = 2000, 200
MOST_BYTES = 64 << 20
FILES_PER_COMMAND = 32

BIN = pathlib.Path(__file__).resolve().parent
MPROC = str(BIN / "mproc")
SINGLE = str(BIN / "map_single")
LIBRARY = str(BIN.parent / "lib" / "libmap_tasks.so")
WORKERS = str(len(os.sched_getaffinity(0)))


def map_function(task):
    return [MPROC, "map", "-j", WORKERS, f"{LIBRARY}:{task}"]


def map_command(*command):
    return [MPROC, "map", "-j", WORKERS, "--", *command]


def xargs(count, *command):
    return ["xargs", "-P", WORKERS, "-n", str(count), *command]


def missing_of(command):
    """Why it does not take part; None: it does."""
    if not shutil.which(command[0]):
        return f"{pathlib.Path(command[0]).name} is not installed"
    if command[0] == MPROC and subprocess.run([MPROC, "help", "map"], stdout=subprocess.DEVNULL,
                                              stderr=subprocess.DEVNULL, check=False).returncode:
        return "mproc has no map"
    if command[0] == "parallel":
        about = subprocess.run(["parallel", "--version"], capture_output=True, text=True,
                               check=False).stdout
        if "GNU" not in about:
            return "parallel is not GNU's"
    return None


class Contender:
    def __init__(self, name, command, lines, keeps_output=False):
        self.name, self.command, self.lines = name, command, lines
        self.keeps_output = keeps_output
        self.missing = missing_of(command)
        self.seconds, self.output = [], None

    def run(self, folder, counts):
        path = folder / "input"
        path.write_text("".join(f"{line}\n" for line in self.lines))
        with open(path) as lines, open(folder / "output", "w") as output:
            before = time.monotonic()
            done = subprocess.run(self.command, stdin=lines, check=False,
                                  stdout=output if self.keeps_output else subprocess.DEVNULL)
            took = time.monotonic() - before
        if done.returncode != 0:
            sys.exit(f"bench_map: {' '.join(self.command)}: exit status {done.returncode}")
        if self.keeps_output:
            self.output = sorted(filter(None, (folder / "output").read_text().split("\n")))
        if counts:
            self.seconds.append(took)

    def rate(self, number):
        return len(self.lines) / self.seconds[number]

    def rates(self):
        return [self.rate(number) for number in range(len(self.seconds))]


class Question:
    def __init__(self, name, what, contenders, targets=()):
        self.name, self.what, self.contenders, self.targets = name, what, contenders, targets

    def present(self):
        return [contender for contender in self.contenders if not contender.missing]

    def measure(self, rounds):
        with tempfile.TemporaryDirectory() as folder:
            for number in range(-1, rounds):
                for contender in random.sample(self.present(), len(self.present())):
                    contender.run(pathlib.Path(folder), number >= 0)
        outputs = [contender for contender in self.present() if contender.keeps_output]
        for contender in outputs:
            if contender.output != outputs[0].output:
                sys.exit(f"bench_map: {contender.name} and {outputs[0].name} print other lines")

    def report(self, out):
        print(f"\n{self.name}: {self.what}; per second, and so many times the last\n")
        for contender in self.contenders:
            fields = {"bench": "map", "case": f"{self.name}: {contender.name}"}
            if contender.missing:
                print(f"  {contender.name:34} {contender.missing}")
                fields["missing"] = contender.missing
            else:
                rate = statistics.median(contender.rates())
                ratio = ratio_of(contender, self.contenders[-1])
                print(f"  {contender.name:34} {rate:14,.0f}" + (f" {ratio:8.2f}x" if ratio else ""))
                fields.update(per_second=round(rate), ratio=ratio and round(ratio, 3))
            write(out, fields)
        for target in self.targets:
            target.report(out, self)
        sys.stdout.flush()


def ratio_of(first, second):
    """How many times faster the first is; None: not measured."""
    if first.missing or second.missing:
        return None
    return statistics.median(a / b for a, b in zip(first.rates(), second.rates()))


class Target:
    """The first contender is so many times as fast as another, or does so many per second."""

    def __init__(self, name, bar, other=None):
        self.name, self.bar, self.other = name, bar, other

    def report(self, out, question):
        first = question.contenders[0]
        if self.other is None:
            what, unit = first.name, "/s"
            figure = None if first.missing else statistics.median(first.rates())
        else:
            second = question.contenders[self.other]
            what, unit = f"{first.name} / {second.name}", "x"
            figure = ratio_of(first, second)
        name = f"{self.name}: {what}"
        if figure is None:
            print(f"  {name:64} not measured")
            return
        met = figure >= self.bar
        print(f"  {name:64} {figure:,.2f}{unit}, target >= {self.bar:,}{unit}: "
              f"{'met' if met else 'missed'}")
        write(out, {"bench": "map", "case": name, "figure": round(figure, 3), "target": self.bar,
                    "met": met})


def write(out, fields):
    if out:
        out.write(json.dumps(fields) + "\n")


def files_below(folder):
    """Regular files of at most 64 MiB together."""
    files, left = [], MOST_BYTES
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(where, name)
            if any(character.isspace() or character in "'\"\\" for character in path):
                continue  # xargs would take it for something else
            if os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.R_OK):
                left -= os.path.getsize(path)
                if left < 0:
                    return files
                files.append(path)
    return files


def questions(folder):
    numbers = [str(number) for number in range(CALLS)]
    files = files_below(folder)
    if not files:
        sys.exit(f"bench_map: {folder}: no files")
    yield Question("calls", f"{CALLS:,} lines", [
        Contender("mproc map, a C function", map_function("nothing"), numbers)],
        [Target("T19", 1_000_000)])
    yield Question("commands", "/bin/true", [
        Contender("mproc map", map_command("/bin/true"), numbers[:COMMANDS]),
        Contender("GNU parallel", ["parallel", "-j", WORKERS, "/bin/true"],
                  numbers[:PARALLEL_COMMANDS]),
        Contender("xargs -P -n 1", xargs(1, "/bin/true"), numbers[:COMMANDS])],
        [Target("T20", 1.1, 2), Target("T20", 8, 1)])
    for work, what in (("pack", "compressed by zlib"), ("digest", "SHA-256")):
        yield Question(work, f"{len(files):,} files of {folder}, {what}", [
            Contender("mproc map, a C function", map_function(work), files, True),
            Contender(f"xargs -P -n {FILES_PER_COMMAND}", xargs(FILES_PER_COMMAND, SINGLE, work),
                      files, True),
            Contender("a single process", [SINGLE, work], files, True)])


def main():
    parser = argparse.ArgumentParser(prog="bench_map")
    parser.add_argument("--json", metavar="FILE", type=argparse.FileType("a"))
    parser.add_argument("folder", metavar="DIR", nargs="?", default="/usr/include")
    arguments = parser.parse_args()
    rounds = int(os.environ.get("BENCH_ROUNDS", ROUNDS))
    print(f"map: {WORKERS} CPUs, {platform.system()} {platform.release()}, "
          f"{' '.join(platform.libc_ver())}; medians of {rounds} interleaved rounds")
    sys.stdout.flush()
    for question in questions(arguments.folder):
        question.measure(rounds)
        question.report(arguments.json)


if __name__ == "__main__":
    main()
