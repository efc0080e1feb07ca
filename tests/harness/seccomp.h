/* A system call filter: a kernel that is older, or a container that forbids more.
 *
 *   const seccomp_rule rules[] = {{.call = SYS_memfd_create},
 *                                 {.call = SYS_madvise, .argument = 2, .mask = ~0U, .value = 18}};
 *   CHECK_EQ(seccomp_deny(rules, 2, ENOSYS), 0);
 *   CHECK_EQ(seccomp_deny_newer(EPERM), 0);
 *
 * From then on the calls fail with this errno value in the calling thread and in all that it makes,
 * beyond an exec too. There is no way back: use it in a case or child of its own. */
#ifndef MPROC_TEST_SECCOMP_H
#define MPROC_TEST_SECCOMP_H

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
#define SECCOMP_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define SECCOMP_ARCH AUDIT_ARCH_AARCH64
#endif

enum { SECCOMP_MAX_RULES = 32, SECCOMP_RULE_SIZE = 5, SECCOMP_PIDFD_OPEN = 434 };

/* A call, whatever its arguments are; with a mask, only where (argument & mask) == value. Of an
 * argument the lower half is seen, which has all flags and commands. */
typedef struct seccomp_rule {
  int call;
  int argument;
  uint32_t mask;
  uint32_t value;
} seccomp_rule;

#define SECCOMP_IOCTL_WITHOUT_SIZE (~((uint32_t)0x3fff << 16))
/* PIDFD_GET_INFO, whatever the size of its struct. */
#define SECCOMP_GET_INFO                                                                           \
  {                                                                                                \
    .call = SYS_ioctl, .argument = 1, .mask = SECCOMP_IOCTL_WITHOUT_SIZE,                          \
    .value = (uint32_t)_IOWR(0xFF, 11, char) & SECCOMP_IOCTL_WITHOUT_SIZE                          \
  }

/* Returns 0 or a negated errno value: -ENOSYS where filters are not known. */
static inline int seccomp_deny(const seccomp_rule *rules, size_t count, int errno_value) {
#ifndef SECCOMP_ARCH
  (void)rules;
  (void)count;
  (void)errno_value;
  return -ENOSYS;
#else
  struct sock_filter code[4 + SECCOMP_RULE_SIZE * SECCOMP_MAX_RULES];
  uint16_t length = 0;
  if (count > SECCOMP_MAX_RULES)
    return -EINVAL;
#define EMIT(...) code[length++] = (struct sock_filter)__VA_ARGS__
#define EMIT_LOAD(field)                                                                           \
  EMIT(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field)))
#define EMIT_REFUSAL                                                                               \
  EMIT(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((uint32_t)errno_value & SECCOMP_RET_DATA)))
  EMIT_LOAD(arch);
  EMIT(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SECCOMP_ARCH, 1, 0)); /* others have other numbers */
  EMIT(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  /* Each rule stands alone: what it does not match falls through to the next. */
  for (const seccomp_rule *rule = rules; rule < rules + count; rule++) {
    EMIT_LOAD(nr);
    EMIT(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)rule->call, 0, rule->mask ? 4 : 1));
    if (rule->mask) {
      EMIT_LOAD(args[rule->argument]);
      EMIT(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, rule->mask));
      EMIT(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, rule->value, 0, 1));
    }
    EMIT_REFUSAL;
  }
  EMIT(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
#undef EMIT
#undef EMIT_LOAD
#undef EMIT_REFUSAL
  struct sock_fprog program = {.len = length, .filter = code};
  /* Root needs no such promise, and programs that it runs may still change their user. */
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0)
    return 0;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
    return -errno;
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) < 0 ? -errno : 0;
#endif
}

/* Denies all that Linux 3.17 and later brought and mproc uses. clone3 is always absent: for another
 * answer than ENOSYS libc makes no threads at all, so no filter gives one. */
static inline int seccomp_deny_newer(int errno_value) {
#ifdef SYS_memfd_create
  const int memfd_create_call = SYS_memfd_create;
#else
  const int memfd_create_call = 319; /* on x86-64 */
#endif
  const seccomp_rule clone3 = {.call = 435};
  const seccomp_rule rules[] = {
      {.call = memfd_create_call},
      {.call = 424 /* pidfd_send_signal */},
      {.call = SECCOMP_PIDFD_OPEN},
      {.call = 436 /* close_range */},
      {.call = SYS_clone, .argument = 0, .mask = 0x1000, .value = 0x1000}, /* CLONE_PIDFD */
      {.call = SYS_waitid, .argument = 0, .mask = ~0U, .value = 3},        /* P_PIDFD */
      SECCOMP_GET_INFO,
      {.call = SYS_madvise, .argument = 2, .mask = ~0U, .value = 18}, /* MADV_WIPEONFORK */
      {.call = SYS_madvise, .argument = 2, .mask = ~0U, .value = 22}, /* MADV_POPULATE_READ */
      {.call = SYS_madvise, .argument = 2, .mask = ~0U, .value = 23}, /* MADV_POPULATE_WRITE */
  };
  int r = seccomp_deny(rules, sizeof rules / sizeof rules[0], errno_value);
  return r < 0 ? r : seccomp_deny(&clone3, 1, ENOSYS);
}

#endif
