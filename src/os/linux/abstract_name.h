/* Abstract names of sockets: they need no file, and end with the last socket that has them. Anybody
 * can read them, and use those that are free. */
#ifndef MPX_OS_LINUX_ABSTRACT_NAME_H
#define MPX_OS_LINUX_ABSTRACT_NAME_H

#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Usable in a signal handler. */
socklen_t mpx_abstract_name(const char *prefix, uint32_t number, struct sockaddr_un *ret_address);
/* A new socket of that type that never waits: a descriptor, -ENOSYS where there are no such names,
 * or another -errno. */
int mpx_abstract_socket(int type);
/* Under the first number that is free, never 0. */
int mpx_bind_abstract(int fd, const char *prefix, uint32_t *ret_number);

#endif
