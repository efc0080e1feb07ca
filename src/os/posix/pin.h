/* Handlers that nobody can take back (of exit, of a thread's end) must not outlive their code. */
#ifndef MPX_OS_POSIX_PIN_H
#define MPX_OS_POSIX_PIN_H

/* Keeps the module that holds `address` loaded to the end of the process, whoever closes it. */
void mpx_pin_module(const void *address);

#endif
