/* Crash points: named places where a test kills the process, to prove that the others recover.
 *
 * Compiled out unless MPX_CRASH_POINTS is 1. Then MPROC_CRASH=NAME[:N] kills the process with
 * SIGKILL the Nth time (first by default) it comes by NAME, and MPROC_CRASH=NAME:stop[:N] stops it
 * with SIGSTOP. The variable is read anew each time.
 *
 * The names are in the section mpx_crash_points of the library. Each death is noted in the file
 * MPROC_CRASH_LOG, if there is one; tests/crash/check_points.py compares the two. */
#ifndef MPX_OS_CRASH_POINT_H
#define MPX_OS_CRASH_POINT_H

#if MPX_CRASH_POINTS
void mpx_crash_point(const char *name);
#define MPROC_CRASH_POINT(name)                                                                    \
  do {                                                                                             \
    static const char mpx_point[] __attribute__((section("mpx_crash_points"), used)) = name;       \
    mpx_crash_point(mpx_point);                                                                    \
  } while (0)
#else
#define MPROC_CRASH_POINT(name) ((void)0)
#endif

#endif
