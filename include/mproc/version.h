/* Version and visibility: the only public header that knows about compilers and systems. */
#ifndef MPROC_VERSION_H
#define MPROC_VERSION_H

#define MPROC_VERSION_MAJOR 0
#define MPROC_VERSION_MINOR 1
#define MPROC_VERSION_PATCH 0
#define MPROC_VERSION_STRING "0.1.0"

#if defined(_WIN32) && defined(MPROC_SHARED)
#if defined(MPROC_BUILDING)
#define MPROC_API __declspec(dllexport)
#else
#define MPROC_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define MPROC_API __attribute__((visibility("default")))
#else
#define MPROC_API
#endif

/* What a program or a plugin of the user's exports. */
#if defined(_WIN32)
#define MPROC_EXPORT __declspec(dllexport)
#elif defined(__GNUC__)
#define MPROC_EXPORT __attribute__((visibility("default")))
#else
#define MPROC_EXPORT
#endif

#if defined(__GNUC__)
#define MPROC_NODISCARD __attribute__((warn_unused_result))
#define MPROC_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define MPROC_NODISCARD
#define MPROC_PRINTF(text, first)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the library that runs, "MAJOR.MINOR.PATCH"; MPROC_VERSION_STRING is the one that
 * was compiled against. Static storage; any thread. */
MPROC_API const char *mproc_version(void);

#ifdef __cplusplus
}
#endif
#endif
