/* What the checks of objects are built of. */
#include "sync/check.h"

#include "base/error.h"
#include "mproc/heap.h"

#include <errno.h>

/* How long a guard may be held by those who look after the dead. */
#define PATIENCE_NS (100 * MPX_NS_PER_MS)

bool mpx_is_zero(const void *start, size_t size) {
  const unsigned char *bytes = start;
  for (size_t i = 0; i < size; i++)
    if (bytes[i] != 0)
      return false;
  return true;
}

int mpx_object_check_block(const void *object, mpx_kind kind, size_t size) {
  int r = mpx_object_check(object, kind);
  size_t lines = mpx_object_lines(size);
  if (r < 0)
    return r;
  if (mproc_heap_usable_size(object) < lines)
    return mpx_fail(-EIO, "the object %p is in no block of its size", object);
  if (!mpx_is_zero((const char *)object + size, lines - size))
    return mpx_fail(-EIO, "somebody wrote behind the end of the object %p", object);
  return 0;
}

int mpx_mutex_check(const mpx_mutex *mutex, const char *what) {
  uint64_t word = atomic_load(&mutex->word);
  mpx_thread owner = word & ~MPX_THREAD_FLAGS;
  const char *wrong = NULL;
  if (word == ~(uint64_t)0)
    wrong = "was destroyed";
  else if (owner == 0 && (word & MPX_MUTEX_WAITED))
    wrong = "is open and says that somebody waits";
  else if (owner && !mpx_thread_existed(mpx_family_header(), owner))
    wrong = "is held by a thread that never was";
  return wrong ? mpx_fail(-EIO, "%s %s: 0x%llx", what, wrong, (unsigned long long)word) : 0;
}

int mpx_guard_check(const mpx_mutex *guard) {
  for (int64_t end = mpx_os_now() + PATIENCE_NS;; mpx_os_sleep(MPX_NS_PER_MS)) {
    int r = mpx_mutex_check(guard, "the guard");
    uint64_t word = atomic_load(&guard->word);
    mpx_thread owner = word & ~MPX_THREAD_FLAGS;
    if (r < 0)
      return r;
    if (word == MPX_MUTEX_DIED)
      return mpx_fail(-EIO, "the guard is open and nobody has repaired what it guards");
    if (!owner || mpx_thread_is_dead(mpx_family_header(), owner))
      return 0;
    if (mpx_os_now() >= end)
      return mpx_fail(-EIO, "the guard is held by a thread that lives: 0x%llx",
                      (unsigned long long)word);
  }
}

/* ---- rosters --------------------------------------------------------------------------------- */

static int check_chunk(const mpx_chunk *chunk) {
  if (mproc_heap_usable_size(chunk) != MPX_CHUNK_SIZE)
    return mpx_fail(-EIO, "the roster goes to %p, which is no chunk", (const void *)chunk);
  if (!mpx_is_zero(chunk + 1, MPX_CHUNK_SIZE - sizeof *chunk))
    return mpx_fail(-EIO, "somebody wrote behind the end of the roster's chunk %p",
                    (const void *)chunk);
  return 0;
}

/* `behind` goes half as fast: in a circle it is met. */
static int check_chain(const mpx_roster *roster) {
  const mpx_chunk *chunk = atomic_load_explicit(&roster->first, memory_order_acquire);
  const mpx_chunk *behind = chunk;
  bool has_roomy = !roster->roomy;
  for (int i = 1; chunk; i++) {
    int r = check_chunk(chunk);
    if (r < 0)
      return r;
    has_roomy |= chunk == roster->roomy;
    chunk = chunk->next;
    if (chunk == behind)
      return mpx_fail(-EIO, "the roster has no end");
    if (i % 2 == 0)
      behind = behind->next;
  }
  return has_roomy ? 0 : mpx_fail(-EIO, "the roster has room in a chunk that it does not have");
}

int mpx_roster_check(const mpx_roster *roster, mpx_entry_visit *visit, void *user) {
  int r = check_chain(roster);
  for (mpx_entry *entry = NULL; r == 0 && (entry = mpx_roster_next(roster, entry));) {
    mpx_thread thread = mpx_entry_thread(entry);
    const char *wrong = visit(roster, entry, user);
    if (wrong && mpx_entry_thread(entry) == thread) /* else it was freed, being of the dead */
      r = mpx_fail(-EIO, "the entry of 0x%llx %s", (unsigned long long)thread, wrong);
  }
  return r;
}

bool mpx_entry_has_twin(const mpx_roster *roster, const mpx_entry *entry) {
  mpx_thread thread = mpx_entry_thread(entry);
  for (const mpx_entry *other = entry; (other = mpx_roster_next(roster, other));)
    if (mpx_entry_thread(other) == thread)
      return true;
  return false;
}

/* ---- notices --------------------------------------------------------------------------------- */

/* One may listen twice to the same; any word may be the name of a bell. */
static const char *check_listener(const mpx_roster *roster, const mpx_entry *entry, void *user) {
  mpx_thread owner = mpx_entry_thread(entry);
  mpx_member member = mpx_notice_member(owner);
  (void)roster, (void)user;
  if (member
          ? !mpx_member_existed(mpx_family_header(), member) || owner != mpx_notice_process(member)
          : !mpx_thread_existed(mpx_family_header(), owner))
    return "is of nobody who ever was";
  if (entry->number != 0 || entry->count != 0 || atomic_load(&entry->news) != 0)
    return "has more than a bell";
  return NULL;
}

int mpx_notice_check(const mpx_notice *notice) {
  int r = mpx_guard_check(&notice->guard);
  return r < 0 ? r : mpx_roster_check(&notice->bells, check_listener, NULL);
}
