/* A system call filter: a kernel that is older, or a container that forbids more.
 *
 *   const int calls[] = {SYS_memfd_create, SYS_madvise};
 *   CHECK_EQ(seccomp_deny(calls, 2, ENOSYS), 0);
 *
 * From then on the calls fail with this errno value in the calling thread and in all that it makes.
 * There is no way back: use it in a case or child of its own. */
#ifndef MPROC_TEST_SECCOMP_H
#define MPROC_TEST_SECCOMP_H

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>

#if defined(__x86_64__)
#define SECCOMP_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define SECCOMP_ARCH AUDIT_ARCH_AARCH64
#endif

#define SECCOMP_MAX_CALLS 32

/* Returns 0 or a negated errno value: -ENOSYS where filters are not known. */
static inline int seccomp_deny(const int *calls, size_t count, int errno_value) {
#ifndef SECCOMP_ARCH
  (void)calls;
  (void)count;
  (void)errno_value;
  return -ENOSYS;
#else
  struct sock_filter code[5 + SECCOMP_MAX_CALLS];
  uint8_t length = 0;
  if (count > SECCOMP_MAX_CALLS)
    return -EINVAL;
#define EMIT(...) code[length++] = (struct sock_filter)__VA_ARGS__
  EMIT(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)));
  /* Another architecture has other numbers: on to "allow", the last but one. */
  EMIT(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SECCOMP_ARCH, 0, (uint8_t)(1 + count)));
  EMIT(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
  for (size_t i = 0; i < count; i++)
    EMIT(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[i], (uint8_t)(count - i), 0));
  EMIT(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  EMIT(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((uint32_t)errno_value & SECCOMP_RET_DATA)));
#undef EMIT
  struct sock_fprog program = {.len = length, .filter = code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
    return -errno;
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) < 0 ? -errno : 0;
#endif
}

#endif
