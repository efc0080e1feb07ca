/* An object of every kind that the shared heap has. */
#ifndef MPROC_TEST_ONE_OF_EACH_H
#define MPROC_TEST_ONE_OF_EACH_H

#include <mproc/mproc.h>

/* A pipe has two connections: the second is of no kind of its own. */
enum {
  LOCK,
  RLOCK,
  RWLOCK,
  SEMAPHORE,
  CONDITION,
  EVENT,
  BARRIER,
  VALUE,
  ARRAY,
  QUEUE,
  CONNECTION,
  KINDS,
  SECOND = KINDS,
  OBJECTS
};

/* The first result that is not 0. */
static inline int make_one_of_each(void *objects[OBJECTS]) {
  mproc_lock *lock;
  mproc_rlock *rlock;
  mproc_rwlock *rwlock;
  mproc_semaphore *semaphore;
  mproc_condition *condition;
  mproc_event *event;
  mproc_barrier *barrier;
  mproc_value *value;
  mproc_array *array;
  mproc_queue *queue;
  mproc_connection *first, *second;
  int r = mproc_lock_create(&lock);
  r = r ? r : mproc_rlock_create(&rlock);
  r = r ? r : mproc_rwlock_create(&rwlock);
  r = r ? r : mproc_semaphore_create(1, NULL, &semaphore);
  r = r ? r : mproc_condition_create(NULL, &condition);
  r = r ? r : mproc_event_create(&event);
  r = r ? r : mproc_barrier_create(1, &barrier);
  r = r ? r : mproc_value_create_int64(1, &value);
  r = r ? r : mproc_array_create(2, 8, &array);
  r = r ? r : mproc_queue_create(NULL, &queue);
  r = r ? r : mproc_pipe_create(NULL, &first, &second);
  if (r)
    return r;
  void *const made[OBJECTS] = {lock,    rlock, rwlock, semaphore, condition, event,
                               barrier, value, array,  queue,     first,     second};
  for (int i = 0; i < OBJECTS; i++)
    objects[i] = made[i];
  return 0;
}

#endif
