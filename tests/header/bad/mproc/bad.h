/* Needs <stddef.h> and does not say so: the check of the headers must find it. */
size_t mproc_bad(void);
