/* Limits and figures of control groups, read from recorded files. */
#include "harness.h"

#include "os/linux/cgroup.h"
#include "os/linux/proc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *root;

static void put(const char *path, const char *text) {
  char command[5000], file[4096];
  snprintf(file, sizeof file, "%s%s", root, path);
  snprintf(command, sizeof command, "mkdir -p \"$(dirname '%s')\"", file);
  CHECK_EQ(system(command), 0);
  FILE *stream = fopen(file, "we");
  CHECK(stream);
  fputs(text, stream);
  fclose(stream);
}

static void begin(const char *cgroup, const char *mountinfo) {
  root = test_tmp_path("root");
  put("/proc/self/cgroup", cgroup);
  put("/proc/self/mountinfo", mountinfo);
}

static void end(void) {
  char command[4096];
  snprintf(command, sizeof command, "rm -rf '%s'", root);
  CHECK_EQ(system(command), 0);
}

static const char unified[] =
    "23 28 0:21 / /proc rw,nosuid shared:12 - proc proc rw\n"
    "35 25 0:29 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

TEST(version_2_limit_of_the_group_itself) {
  begin("0::/user.slice/app\n", unified);
  put("/sys/fs/cgroup/user.slice/app/memory.max", "536870912\n");
  put("/sys/fs/cgroup/user.slice/app/memory.current", "134217728\n");
  put("/sys/fs/cgroup/user.slice/app/memory.stat",
      "anon 1000\nfile 999999999\ninactive_anon 5\nactive_file 1000\ninactive_file 217728\n");
  put("/sys/fs/cgroup/user.slice/app/cpu.max", "150000 100000\n");
  CHECK_EQ(mpx_cgroup_memory_limit(root), 536870912);
  CHECK_EQ(mpx_cgroup_memory_headroom(root), 536870912 - (134217728 - 218728));
  CHECK_EQ(mpx_cgroup_cpus(root), 2);
  end();
}

TEST(version_2_limit_of_a_parent) {
  begin("0::/a/b/c\n", unified);
  put("/sys/fs/cgroup/a/b/c/memory.max", "max\n");
  put("/sys/fs/cgroup/a/b/c/memory.current", "100\n");
  put("/sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n");
  put("/sys/fs/cgroup/a/b/memory.max", "5000\n");
  put("/sys/fs/cgroup/a/b/memory.current", "100\n");
  put("/sys/fs/cgroup/a/memory.max", "4000\n");
  put("/sys/fs/cgroup/a/memory.current", "3990\n");
  put("/sys/fs/cgroup/a/cpu.max", "100000 100000\n");
  CHECK_EQ(mpx_cgroup_memory_limit(root), 4000);
  CHECK_EQ(mpx_cgroup_memory_headroom(root), 10);
  CHECK_EQ(mpx_cgroup_cpus(root), 1);
  end();
}

TEST(a_group_above_its_limit_has_no_headroom) {
  begin("0::/\n", unified);
  put("/sys/fs/cgroup/memory.max", "4096\n");
  put("/sys/fs/cgroup/memory.current", "8192\n");
  CHECK_EQ(mpx_cgroup_memory_headroom(root), 0);
  end();
}

TEST(no_limit_anywhere) {
  begin("0::/a\n", unified);
  put("/sys/fs/cgroup/a/memory.max", "max\n");
  put("/sys/fs/cgroup/a/cpu.max", "max 100000\n");
  CHECK(mpx_cgroup_memory_limit(root) == UINT64_MAX);
  CHECK(mpx_cgroup_memory_headroom(root) == UINT64_MAX);
  CHECK_EQ(mpx_cgroup_cpus(root), 0);
  end();
}

static const char version1[] =
    "31 25 0:26 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n"
    "32 25 0:27 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd\n"
    "33 25 0:30 / /sys/fs/cgroup/cpuset rw shared:15 - cgroup cgroup rw,cpuset\n"
    "34 25 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:15 - cgroup cgroup rw,cpu,cpuacct\n"
    "35 25 0:32 / /sys/fs/cgroup/memory rw shared:15 - cgroup cgroup rw,memory\n";

/* As on systems with both: version 1 has the controllers, version 2 is there and empty. */
TEST(version_1_beside_version_2) {
  begin("9:cpuset:/\n5:memory:/jobs/7\n4:cpu,cpuacct:/jobs/7\n1:name=systemd:/x\n0::/x\n",
        version1);
  put("/sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes", "9223372036854771712\n");
  put("/sys/fs/cgroup/memory/jobs/7/memory.usage_in_bytes", "70000\n");
  put("/sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", "100000\n");
  put("/sys/fs/cgroup/memory/jobs/memory.usage_in_bytes", "80000\n");
  put("/sys/fs/cgroup/memory/jobs/memory.stat",
      "cache 1\ninactive_file 7\ntotal_inactive_file 3000\ntotal_active_file 2000\n");
  put("/sys/fs/cgroup/cpu,cpuacct/jobs/7/cpu.cfs_quota_us", "-1\n");
  put("/sys/fs/cgroup/cpu,cpuacct/jobs/7/cpu.cfs_period_us", "100000\n");
  put("/sys/fs/cgroup/cpu,cpuacct/jobs/cpu.cfs_quota_us", "250000\n");
  put("/sys/fs/cgroup/cpu,cpuacct/jobs/cpu.cfs_period_us", "100000\n");
  CHECK_EQ(mpx_cgroup_memory_limit(root), 100000);
  CHECK_EQ(mpx_cgroup_memory_headroom(root), 25000);
  CHECK_EQ(mpx_cgroup_cpus(root), 3);
  end();
}

/* The container sees its own group at the mount point, but reads its path as seen from outside. */
TEST(container_with_the_hosts_paths) {
  begin("5:memory:/docker/abc\n4:cpu:/docker/abc\n",
        "40 30 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
        "41 30 0:33 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n");
  put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n");
  put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
  put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  CHECK_EQ(mpx_cgroup_memory_limit(root), 2000);
  CHECK_EQ(mpx_cgroup_cpus(root), 1);
  end();
}

TEST(container_below_the_mounted_group) {
  begin("5:memory:/docker/abc/inner\n",
        "40 30 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
  put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n");
  put("/sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "1000\n");
  CHECK_EQ(mpx_cgroup_memory_limit(root), 1000);
  end();
}

TEST(group_outside_of_what_is_mounted) {
  begin("0::/../../other\n", unified);
  put("/sys/fs/cgroup/memory.max", "3000\n");
  put("/sys/other/memory.max", "1\n");
  CHECK_EQ(mpx_cgroup_memory_limit(root), 3000);
  end();
  begin("0::/docker/abcdef\n", "40 30 0:32 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
  put("/sys/fs/cgroup/memory.max", "3000\n");
  put("/sys/fs/cgroup/def/memory.max", "1\n");
  CHECK_EQ(mpx_cgroup_memory_limit(root), 3000);
  end();
}

TEST(mount_point_with_spaces) {
  begin("0::/a\n", "40 30 0:32 / /my\\040groups rw - cgroup2 none rw\n");
  put("/my groups/a/memory.max", "77\n");
  CHECK_EQ(mpx_cgroup_memory_limit(root), 77);
  end();
}

TEST(version_2_kills_of_the_nearest_group_that_counts) {
  begin("0::/a/b\n", unified);
  put("/sys/fs/cgroup/a/b/memory.max", "max\n");
  CHECK_EQ(mpx_cgroup_oom_kills(root), -ENOSYS);
  put("/sys/fs/cgroup/a/memory.events",
      "low 1\nhigh 2\nmax 300\noom 4\noom_kill 5\noom_group_kill 6\n");
  CHECK_EQ(mpx_cgroup_oom_kills(root), 5);
  put("/sys/fs/cgroup/a/b/memory.events", "low 0\noom 1\noom_kill 0\noom_group_kill 1\n");
  CHECK_EQ(mpx_cgroup_oom_kills(root), 0);
  end();
}

TEST(version_1_kills_of_the_group_itself) {
  begin("5:memory:/jobs/7\n0::/x\n", version1);
  put("/sys/fs/cgroup/memory/jobs/memory.oom_control",
      "oom_kill_disable 1\nunder_oom 0\noom_kill 7\n");
  put("/sys/fs/cgroup/memory/jobs/7/memory.oom_control",
      "oom_kill_disable 1\nunder_oom 2\noom_kill 3\n");
  CHECK_EQ(mpx_cgroup_oom_kills(root), 3);
  end();
}

TEST(kills_that_nobody_counts) {
  static const char *const texts[] = {"oom_kill_disable 1\nunder_oom 0\n", "oom_kill\n",
                                      "oom_kill x\n", "oom_kill 18446744073709551615\n",
                                      "xoom_kill 5\n"};
  root = "/nonexistent";
  CHECK_EQ(mpx_cgroup_oom_kills(root), -ENOSYS);
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    begin("5:memory:/\n", version1);
    put("/sys/fs/cgroup/memory/memory.oom_control", texts[i]);
    CHECK_EQ(mpx_cgroup_oom_kills(root), -ENOSYS);
    end();
  }
}

TEST(nothing_readable_is_no_limit) {
  root = "/nonexistent";
  CHECK(mpx_cgroup_memory_limit(root) == UINT64_MAX);
  CHECK_EQ(mpx_cgroup_cpus(root), 0);
  begin("garbage\n::\n", "garbage\n - \n1 - cgroup2 a b\n\n1 2 3 - cgroup2 a b\n");
  CHECK(mpx_cgroup_memory_limit(root) == UINT64_MAX);
  CHECK_EQ(mpx_cgroup_cpus(root), 0);
  end();
  begin("0::/a\n", unified);
  put("/sys/fs/cgroup/a/memory.max", "nonsense\n");
  put("/sys/fs/cgroup/a/cpu.max", "100000 0\n");
  CHECK(mpx_cgroup_memory_limit(root) == UINT64_MAX);
  CHECK_EQ(mpx_cgroup_cpus(root), 0);
  end();
}

TEST(names_with_parentheses_do_not_confuse_stat) {
  mpx_proc_stat stat;
  CHECK_OK(mpx_proc_parse_stat("77 (a) R 1 (b c) S 1 77 77 0 -1 4194304 100 0 0 0 1 2 0 0 20 0 3 0 "
                               "987654321 1000 5 18446744073709551615 1 1",
                               &stat));
  CHECK_EQ(stat.state, 'S');
  CHECK_EQ(stat.threads, 3);
  CHECK_EQ(stat.start_time, 987654321);
  CHECK_EQ(mpx_proc_parse_stat("77 (a", &stat), -EBADMSG);
  CHECK_EQ(mpx_proc_parse_stat("77 (a) S 1 2", &stat), -EBADMSG);
  CHECK_EQ(mpx_proc_parse_stat("", &stat), -EBADMSG);
}
