#!/usr/bin/env python3
"""One round of bench_queue through CPython's multiprocessing.Queue, measured as the others' are.

  queue_python.py check 0 0 0 0 0                      prints 1 if there is such a queue
  queue_python.py rate SIZE PLACES PAIRS WARM COUNT    messages per us, and what arrived
  queue_python.py trip SIZE PLACES 1 WARM COUNT        median us, and what arrived there and here

What arrived is three numbers: how many, and the sums of the numbers at both ends of the messages.
"""

import multiprocessing
import multiprocessing.synchronize  # fails where there are no semaphores
import statistics
import struct
import sys
import time

MINUTE = 60
NUMBER = struct.Struct("=Q")

context = multiprocessing.get_context("fork")


class Sum:
    def __init__(self):
        self.numbers = [0, 0, 0]

    def read(self, message):
        """Returns the number at its head."""
        head, = NUMBER.unpack_from(message)
        tail, = NUMBER.unpack_from(message, len(message) - NUMBER.size)
        self.numbers[0] += 1
        self.numbers[1] += head
        self.numbers[2] += tail
        return head


class Writer:
    """A new object for each message: a queue reads it some time after put has returned."""

    def __init__(self, size):
        self.is_short = size == NUMBER.size
        self.middle = bytes(max(size - 2 * NUMBER.size, 0))

    def write(self, number):
        end = NUMBER.pack(number)
        return end if self.is_short else end + self.middle + end


def produce(queue, writer, first, count):
    for number in range(first, first + count):
        queue.put(writer.write(number))


def consume(queue, found, count):
    for _ in range(count):
        found.read(queue.get())


def work_for_rate(queue, barrier, reports, lane, is_producer, size, pairs, warm, count):
    found, writer = Sum(), Writer(size)
    warm_share, share = warm // pairs, count // pairs
    if is_producer:
        produce(queue, writer, lane * warm_share, warm_share)
    else:
        consume(queue, found, warm_share)
    barrier.wait()
    begin = time.monotonic()
    if is_producer:
        produce(queue, writer, warm + lane * share, share)
    else:
        consume(queue, found, share)
    reports.put((begin, time.monotonic(), found.numbers))


def ping(out, back, barrier, reports, size, warm, count):
    found, writer, times = Sum(), Writer(size), []
    barrier.wait()
    for number in range(warm + count):
        before = time.monotonic()
        out.put(writer.write(number))
        found.read(back.get())
        times.append(time.monotonic() - before)
    reports.put((1, statistics.median(times[warm:]) * 1e6, found.numbers))


def pong(out, back, barrier, reports, size, warm, count):
    found, writer = Sum(), Writer(size)
    barrier.wait()
    for _ in range(warm + count):
        back.put(writer.write(found.read(out.get())))
    reports.put((0, 0, found.numbers))


def run(reports, workers):
    """Returns what each one reported."""
    processes = [context.Process(target=function, args=arguments, daemon=True)
                 for function, arguments in workers]
    for process in processes:
        process.start()
    for process in processes:
        process.join(MINUTE)
        if process.exitcode != 0:
            sys.exit(f"queue_python.py: a worker: {process.exitcode}")
    return [reports.get() for _ in processes]


def measure_rate(size, places, pairs, warm, count):
    queue, reports = context.Queue(places), context.SimpleQueue()
    barrier = context.Barrier(2 * pairs)
    found = run(reports, [(work_for_rate, (queue, barrier, reports, lane, is_producer, size, pairs,
                                           warm, count))
                          for lane in range(pairs) for is_producer in (True, False)])
    span = max(end for _, end, _ in found) - min(begin for begin, _, _ in found)
    print(count / (span * 1e6), *(sum(numbers) for numbers in zip(*(one[2] for one in found))))


def measure_trip(size, places, _, warm, count):
    out, back, reports = context.Queue(places), context.Queue(places), context.SimpleQueue()
    barrier = context.Barrier(2)
    arguments = out, back, barrier, reports, size, warm, count
    there, here = sorted(run(reports, [(ping, arguments), (pong, arguments)]))
    print(here[1], *there[2], *here[2])


def main():
    if sys.argv[1] == "check":
        print(1)
        return
    numbers = [int(argument) for argument in sys.argv[2:]]
    {"rate": measure_rate, "trip": measure_trip}[sys.argv[1]](*numbers)


if __name__ == "__main__":
    main()
