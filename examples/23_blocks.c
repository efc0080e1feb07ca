/* Pictures go through a queue without a copy: what is put is a block of the shared heap, and who
 * gets it has it at the same address. Prints:
 *   8 pictures of 1 MiB came, 8 where they were made
 */
#include <mproc/mproc.h>
#include <stdio.h>
#include <string.h>

enum { PICTURES = 8, PIXELS = 1 << 20 };

typedef struct picture {
  const void *born_at;
  unsigned char pixels[PIXELS];
} picture;

static int paint(void *arg, size_t size) {
  mproc_queue *queue = *(mproc_queue **)arg;
  (void)size;
  for (int i = 0; i < PICTURES; i++) {
    picture *p = mproc_heap_alloc_owned(sizeof *p); /* if we are killed, it is freed */
    if (!p)
      return 1;
    p->born_at = p;
    memset(p->pixels, i, sizeof p->pixels);
    if (mproc_queue_put_block(queue, p, sizeof *p, MPROC_FOREVER) < 0)
      return 1; /* else the queue has it, and we have it no more */
  }
  return 0;
}

int main(int argc, char **argv) {
  const mproc_queue_options few = {.capacity = 2};
  mproc_process *painter;
  mproc_queue *queue;
  int came = 0, in_place = 0;
  int ok = mproc_init(&argc, &argv, NULL) == 0 && mproc_queue_create(&few, &queue) == 0 &&
           mproc_process_create(&painter, paint, &queue, sizeof queue, NULL) == 0 &&
           mproc_process_start(painter) == 0;
  while (ok && came < PICTURES) {
    void *block;
    size_t size;
    ok = mproc_queue_get_block(queue, &block, &size, MPROC_FOREVER) == 0;
    if (!ok)
      break;
    const picture *p = block; /* ours now */
    in_place += size == sizeof *p && p->born_at == p && p->pixels[PIXELS - 1] == came;
    came++;
    ok = mproc_heap_free(block) == 0;
  }
  printf("%d pictures of 1 MiB came, %d where they were made\n", came, in_place);
  return !ok || mproc_process_join(painter, MPROC_FOREVER) < 0 ||
         mproc_process_close(painter) < 0 || mproc_queue_destroy(queue) < 0;
}
