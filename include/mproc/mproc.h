/* mproc: processes and shared memory for C, with Python's vocabulary. Includes every header. */
#ifndef MPROC_H
#define MPROC_H

#include "context.h"
#include "error.h"
#include "heap.h"
#include "init.h"
#include "log.h"
#include "notifier.h"
#include "pipe.h"
#include "pool.h"
#include "process.h"
#include "queue.h"
#include "start_method.h"
#include "sync.h"
#include "task.h"
#include "value.h"
#include "version.h"
#include "wait.h"

#endif
