/* Ids and capabilities, which an exec changes by rules of its own. */
#ifndef MPX_OS_LINUX_CREDENTIALS_H
#define MPX_OS_LINUX_CREDENTIALS_H

#include "os/os.h"

#include <linux/capability.h>
#include <sys/types.h>

typedef struct mpx_capability_sets {
  struct __user_cap_data_struct halves[2]; /* capabilities 0 to 31, 32 to 63 */
} mpx_capability_sets;

typedef struct mpx_ids {
  uid_t users[3]; /* real, effective, saved */
  gid_t groups[3];
} mpx_ids;

void mpx_ids_get(mpx_ids *ret_ids);

/* By the kernel's calls, there are none in libc. False: refused, and *ret_sets is all zeros. */
bool mpx_capabilities_get(mpx_capability_sets *ret_sets);

/* Whether that changes ids, which makes the memory undumpable, for all that share it. */
bool mpx_credentials_change_ids(const mpx_credentials *credentials);
/* Before an exec: what is to be there after it, as far as that is possible. [child] */
void mpx_credentials_before_exec(const mpx_credentials *credentials, mproc_handle record);

#endif
