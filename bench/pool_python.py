#!/usr/bin/env python3
"""One round of bench_pool by Python's pools, measured as the others' are: prints M tasks/s.

  pool_python.py async|map|joblib|loky WORKERS TASKS
  pool_python.py check|check_joblib|check_loky 0 0    prints 1 if it can be imported
"""

import multiprocessing
import multiprocessing.synchronize  # fails where there are no semaphores
import sys
import time

WARM_PART = 8


def nothing(number):
    """Tells that it ran, and no more."""
    return number


def rate(run, tasks):
    """Of a function that runs so many tasks and returns how many it has seen."""
    run(tasks // WARM_PART)
    before = time.monotonic()
    if run(tasks) != tasks:
        sys.exit("pool_python.py: a task is lost")
    return tasks / ((time.monotonic() - before) * 1e6)


def measure_async(workers, tasks):
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        def run(count):
            results = [pool.apply_async(nothing, (number,)) for number in range(count)]
            return sum(result.get() >= 0 for result in results)
        return rate(run, tasks)


def measure_map(workers, tasks):
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        return rate(lambda count: len(pool.map(nothing, range(count), chunksize=1)), tasks)


def measure_joblib(workers, tasks):
    import joblib
    with joblib.Parallel(n_jobs=workers, batch_size=1) as parallel:
        return rate(lambda count: len(parallel(joblib.delayed(nothing)(number)
                                               for number in range(count))), tasks)


def measure_loky(workers, tasks):
    try:
        import loky
    except ImportError:
        from joblib.externals import loky
    executor = loky.get_reusable_executor(max_workers=workers)

    def run(count):
        futures = [executor.submit(nothing, number) for number in range(count)]
        return sum(future.result() >= 0 for future in futures)
    return rate(run, tasks)


def check(_workers, _tasks):
    return 1


def check_joblib(_workers, _tasks):
    import joblib  # noqa: F401
    return 1


def check_loky(_workers, _tasks):
    try:
        import loky  # noqa: F401
    except ImportError:
        from joblib.externals import loky  # noqa: F401
    return 1


def main():
    measures = {"async": measure_async, "map": measure_map, "joblib": measure_joblib,
                "loky": measure_loky, "check": check, "check_joblib": check_joblib,
                "check_loky": check_loky}
    print(measures[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3])))


if __name__ == "__main__":
    main()
