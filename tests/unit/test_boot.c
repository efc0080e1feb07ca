/* The boot record is read by a process that knows nothing yet: whatever is wrong with it is told,
 * and nothing beyond its end is read. */
#include "harness.h"
#include "processes.h"

#include "process/boot.h"

enum { INHERITED = 2, ARGUMENT_SIZE = 16 };

/* As spawn writes it: head and fields, what is inherited, the argument block. */
typedef struct whole_record {
  mpx_boot_record fixed;
  mpx_inherited inherited[INHERITED];
  char argument[ARGUMENT_SIZE];
} whole_record;

static const uint64_t whole_size = sizeof(whole_record);

typedef struct fixture {
  whole_record whole;
  size_t size; /* of what is sealed */
  mproc_handle report[2];
} fixture;

/* Sound, but for a family that nobody can join. */
static fixture new_record(void) {
  fixture f = {.size = sizeof f.whole};
  mpx_boot_record *record = &f.whole.fixed;
  CHECK_OK(mpx_os_pipe(f.report));
  CHECK_OK(mpx_boot_prepare(record, MPX_BOOT_ENTRY, f.report[1]));
  record->head.size = f.size;
  record->ticket.handle = MPX_NO_HANDLE;
  record->inherited_at = offsetof(whole_record, inherited);
  record->inherited_count = INHERITED;
  record->argument_at = offsetof(whole_record, argument);
  record->argument_size = ARGUMENT_SIZE;
  for (int i = 0; i < INHERITED; i++)
    f.whole.inherited[i] = (mpx_inherited){.handle = MPX_NO_HANDLE, .name = "x"};
  return f;
}

/* Executes this program with the record; returns what it reports: never 0. */
static int report_on(fixture *f) {
  char path[MPX_OS_PATH_SIZE];
  mproc_handle handle;
  const mpx_os_bytes part = {&f->whole, f->size};
  CHECK_OK(mpx_os_self_executable(path));
  CHECK_OK(mpx_os_seal_create("mproc-boot", &part, 1, &handle));
  const mproc_handle keep[] = {handle, f->report[1]};
  const mpx_boot_launch boot = {.launch = {.path = path, .keep = keep, .keep_count = 2},
                                .title = "a-child",
                                .record = handle};
  mpx_child child;
  mproc_handle held;
  mpx_stage stage;
  CHECK_OK(mpx_os_child_prepare(&child, &held));
  CHECK_OK(mpx_boot_spawn(&boot, &child, &stage));
  CHECK_OK(mpx_os_child_name(&child));
  mpx_os_close(f->report[1]);
  int r = mpx_report_receive(f->report[0], &child, mpx_deadline(mpx_os_now(), JOIN_MS), "a-child");
  CHECK_EQ(waitpid((pid_t)child.pid, NULL, 0), child.pid);
  mpx_os_close(held);
  mpx_os_close(child.sentinel);
  mpx_os_close(f->report[0]);
  mpx_os_close(handle);
  if (r == 1) /* ended without a word */
    r = MPROC_EBOOT;
  CHECK(r < 0);
  return r;
}

static void check_goes_on(fixture f) {
  int r = report_on(&f);
  if (r == MPROC_ERECORD || r == MPROC_EBOOT)
    test_fail(__FILE__, __LINE__, "a sound record is taken", "%s", mproc_error_detail());
}

static void check_refused(fixture f) {
  CHECK_EQ(report_on(&f), MPROC_ERECORD);
  CHECK_CONTAINS(mproc_error_detail(), "does not fit this version");
}

TEST(record_that_is_sound_is_taken) {
  check_goes_on(new_record());
  fixture f = new_record();
  f.whole.fixed.argument_at = whole_size;
  f.whole.fixed.argument_size = 0;
  check_goes_on(f);
  f = new_record();
  f.whole.fixed.inherited_at = whole_size;
  f.whole.fixed.inherited_count = 0;
  check_goes_on(f);
}

TEST(record_of_another_version) {
  fixture f = new_record();
  f.whole.fixed.version = MPX_BOOT_VERSION + 1;
  check_refused(f);
}

TEST(record_that_is_shorter_than_its_fields) {
  fixture f = new_record();
  f.size = f.whole.fixed.head.size = sizeof f.whole.fixed - 1;
  f.whole.fixed.inherited_at = f.whole.fixed.inherited_count = 0;
  f.whole.fixed.argument_at = f.whole.fixed.argument_size = 0;
  check_refused(f);
}

TEST(fields_that_nobody_could_have_written) {
  fixture f = new_record();
  memset(f.whole.fixed.entry.path, 'x', sizeof f.whole.fixed.entry.path); /* no end */
  check_refused(f);
  f = new_record();
  f.whole.fixed.chosen_method = MPX_METHOD_MAIN + 1;
  check_refused(f);
}

static void check_inherited(uint64_t at, uint64_t count) {
  fixture f = new_record();
  f.whole.fixed.inherited_at = at;
  f.whole.fixed.inherited_count = count;
  check_refused(f);
}

TEST(inherited_handles_that_lie_outside) {
  const uint64_t at = offsetof(whole_record, inherited);
  check_inherited(whole_size + 1, 0);
  check_inherited(UINT64_MAX, 1);
  check_inherited(at + 4, 1);
  check_inherited(whole_size - sizeof(mpx_inherited) + 1, 1);
  check_inherited(at, INHERITED + 1);
  check_inherited(at, UINT64_MAX);
  check_inherited(at, UINT64_MAX / sizeof(mpx_inherited) + 2); /* wraps to one */
}

static void check_argument(uint64_t at, uint64_t size) {
  fixture f = new_record();
  f.whole.fixed.argument_at = at;
  f.whole.fixed.argument_size = size;
  check_refused(f);
}

TEST(argument_block_that_lies_outside) {
  const uint64_t at = offsetof(whole_record, argument);
  check_argument(whole_size + 1, 0);
  check_argument(UINT64_MAX - 3, 8);
  check_argument(at, whole_size - at + 1);
  check_argument(at + 1, UINT64_MAX);
  check_argument(0, whole_size + 1);
}

/* Such a record is not even asked whom to tell: the program says it and ends. */
static void check_damaged(fixture f) {
  CHECK_EQ(report_on(&f), MPROC_EBOOT);
}

TEST(head_that_is_damaged) {
  fixture f = new_record();
  f.whole.fixed.head.magic[7]++;
  check_damaged(f);
  f = new_record();
  f.whole.fixed.head.size++;
  check_damaged(f);
  f = new_record();
  f.size = f.whole.fixed.head.size = sizeof f.whole.fixed.head - 1;
  check_damaged(f);
  f = new_record();
  memset(f.whole.fixed.head.boot.path, 'x', sizeof f.whole.fixed.head.boot.path);
  check_damaged(f);
}
