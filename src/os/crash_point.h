/* Crash points: named places where a test kills the process, to prove that the others recover.
 *
 * Compiled out unless MPX_CRASH_POINTS is 1. Then MPROC_CRASH=NAME[:N] kills the process with
 * SIGKILL the Nth time (first by default) it comes by NAME, and MPROC_CRASH=NAME:stop[:N] stops it
 * with SIGSTOP. The variable is read anew each time. */
#ifndef MPX_OS_CRASH_POINT_H
#define MPX_OS_CRASH_POINT_H

#if MPX_CRASH_POINTS
void mpx_crash_point(const char *name);
#define MPROC_CRASH_POINT(name) mpx_crash_point(name)
#else
#define MPROC_CRASH_POINT(name) ((void)0)
#endif

#endif
