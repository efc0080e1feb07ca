/* The lock hand-over of src/sync/mutex.c. Each `atomic` is one step in shared memory, and what
 * follows from it in registers.
 *
 *   (nothing)   deaths and looks
 *   NO_LOOKS    neither: the wakes alone must do
 *   DESTROY     the last process destroys the lock in the end, if nobody holds it
 *   AWAIT       the second only waits until nobody has it, as mpx_mutex_await does
 *   BROKEN_n    what must be found
 *
 * Checked: there are never two living owners; DIED is told from an owner's death until somebody
 * has repaired, and never else; who waits gets the lock (an invalid end state: the system stands
 * still and somebody sleeps). */
#ifdef BROKEN_7
#define DESTROY
#endif
#ifdef BROKEN_8
#define AWAIT
#endif
#if defined(BROKEN_1) || defined(BROKEN_2) || defined(BROKEN_4) || defined(BROKEN_6) || \
  defined(BROKEN_7) || defined(BROKEN_8)
#define NO_LOOKS /* a look repairs these: what must be found is that it is needed */
#endif

#define PROCESSES 3
#ifdef NO_LOOKS
#define KILLS 0
#define ROUNDS 2
#else
#define KILLS 2
#define ROUNDS 1
#endif

#define DIED 1
#define WAITED 2
#define FLAGS 3
#define GONE 255
#define OWNER(word) ((word) >> 2)
#define IS_OWNED(word) (OWNER(word) != 0)
/* The half that a futex compares leaves the number of the thread's cell out, so some threads look
 * the same in it: here 1 and 2, and 3 does not. */
#define LOW(word) ((((OWNER(word) + 1) / 2) << 2) | ((word) & FLAGS))

#define ME (_pid) /* Fate is 0, so no thread is */

mtype = { taken, busy, closed, to_swap }; /* to_swap: no answer yet, a CAS follows */

byte word;
bool asleep[PROCESSES + 1]; /* in the kernel's queue of the word */
bool dead[PROCESSES + 1];   /* at once for all to see: who sees it later might as well look first */

/* What the code does not know: who is inside, and whether what the lock guards is half changed. */
byte holder;
bool half_changed;

/* In the same step as the CAS. */
#define TAKE(wanted)                                \
  word = wanted;                                    \
  assert(holder == 0 || dead[holder]);              \
  half_changed = half_changed || holder != 0;       \
  holder = ME;                                      \
  assert(half_changed == (((wanted) & DIED) != 0)); \
  result = taken

/* In one step: the kernel chooses a sleeper. */
inline wake_one() {
  if
  :: asleep[1] -> asleep[1] = false
  :: asleep[2] -> asleep[2] = false
  :: asleep[3] -> asleep[3] = false
  :: else
  fi
}

/* try_once(); `result`: taken, busy or closed. */
inline try_once() {
  seen = word;
  do
  :: atomic {
      if
      :: seen == GONE -> result = closed
      :: seen != GONE && IS_OWNED(seen) && !dead[OWNER(seen)] -> result = busy
      :: else -> result = to_swap /* mutex.found_dead, if there is an owner */
      fi;
      if
      :: result != to_swap -> seen = 0; break
      :: else
      fi
    };
    atomic {
      if
#ifdef BROKEN_5 /* a store instead of the CAS */
      :: word == seen || IS_OWNED(seen) ->
#else
      :: word == seen ->
#endif
#ifdef BROKEN_3 /* the next owner is not told of the death */
        TAKE((ME << 2) | keep | (seen & FLAGS));
#else
        TAKE((ME << 2) | keep | (seen & FLAGS) | (IS_OWNED(seen) -> DIED : 0));
#endif
        seen = 0;
        break /* mutex.taken */
      :: else -> seen = word
      fi
    }
  od
}

/* mark_waited(); `result` busy: there is an owner, and `seen` is the word to sleep on. */
inline mark_waited() {
  seen = word;
  do
  :: atomic {
      if
#ifdef BROKEN_7 /* GONE looks as if somebody had it */
      :: IS_OWNED(seen) && (seen & WAITED) -> result = busy; break
#else
      :: seen == GONE -> result = closed; break
      :: seen != GONE && (seen & WAITED) -> result = busy; break
#endif
      :: !IS_OWNED(seen) -> result = to_swap; break
      :: else ->
        if
        :: word == seen -> seen = seen | WAITED; word = seen; result = busy; break
        :: else -> seen = word
        fi
      fi
    }
  od
}

/* mpx_sleep(). A look that would find the same word of the same living owner is left out: it does
 * nothing but sleep again. So the system stands still when only such looks are left. */
inline sleep() {
  atomic { /* mutex.waits, mutex.awaits */
#ifdef BROKEN_4 /* the kernel does not compare */
    asleep[ME] = true
#else
    asleep[ME] = LOW(word) == LOW(seen)
#endif
  };
  atomic {
    if
    :: !asleep[ME]
#ifndef NO_LOOKS
    :: asleep[ME] && (LOW(word) != LOW(seen) || word == GONE || dead[OWNER(word)])
#endif
    :: asleep[ME] && has_deadline -> late = true
    fi;
    asleep[ME] = false;
    seen = 0
  } /* mutex.woken, mutex.awaited */
}

/* mpx_mutex_lock_until(), for ever or until a deadline, which may pass at any time. */
inline lock() {
  atomic { /* mpx_mutex_lock() */
    if
    :: word == 0 -> TAKE(ME << 2)
    :: else -> result = busy
    fi
  };
  do
  :: result == taken -> break
  :: else ->
    try_once();
    if
    :: result != busy -> break
    :: else
    fi;
    mark_waited();
    if
    :: result == busy && has_deadline -> result = busy; break
    :: result == busy && !late -> sleep()
    :: result == to_swap
    :: result == closed -> break
    fi;
#ifndef BROKEN_2 /* whoever slept forgets that others may sleep still */
    keep = WAITED
#endif
  od
}

/* mpx_mutex_await(); `keep`: it has slept */
inline await() {
  do
  :: seen = word;
    if
    :: seen == GONE -> result = closed; break
    :: !IS_OWNED(seen) -> result = taken; break
    :: seen != GONE && IS_OWNED(seen) && dead[OWNER(seen)] ->
      atomic { /* mutex.found_dead is before */
        if
        :: word == seen ->
          word = DIED;
          keep = keep | (seen & WAITED);
          half_changed = true;
          holder = 0;
          result = taken;
          break /* mutex.opened_for_dead */
        :: else
        fi
      }
    :: else ->
      mark_waited();
      if
      :: result == busy -> sleep(); keep = WAITED
      :: else
      fi
    fi
  od;
  atomic {
#ifndef BROKEN_8 /* the one wake ends here */
    if
    :: result == taken && keep != 0 -> wake_one()
    :: else
    fi;
#endif
    seen = 0;
    keep = 0;
    result = 0
  }
}

/* mpx_mutex_unlock_own() */
inline unlock() {
  do
  :: seen = word;
    atomic {
      if
#ifdef BROKEN_6 /* a store instead of the CAS */
      :: true ->
#else
      :: word == seen ->
#endif
        word = seen & DIED;
        holder = 0;
        break /* mutex.released */
      :: else
      fi
    }
  od;
  atomic {
#ifndef BROKEN_1 /* nobody is woken */
    if
    :: seen & WAITED -> wake_one()
    :: else
    fi;
#endif
    seen = 0
  }
}

/* mpx_mutex_destroy() */
inline destroy() {
  try_once();
  if
  :: result == taken ->
    atomic { word = GONE; holder = 0 };
    atomic {
      asleep[1] = false;
      asleep[2] = false
    }
  :: else
  fi
}

/* Who has a deadline and leaves must not take a wake with it. */
proctype Process(byte rounds; bool has_deadline) {
  byte seen, keep;
  bool late;
  mtype result;
  {
    do
#ifdef AWAIT
    :: rounds > 0 && ME == 2 -> await(); rounds--
    :: rounds > 0 && ME != 2 ->
#else
    :: rounds > 0 ->
#endif
      lock();
      if
      :: result == closed -> break
      :: result == busy
      :: result == taken ->
        if
        :: word & DIED -> atomic { word = word & ~DIED; half_changed = false }
        :: true
        fi;
        unlock()
      fi;
      atomic { rounds--; keep = 0; late = false; result = 0 }
    :: else -> break
    od;
#ifdef DESTROY
    if
    :: has_deadline -> destroy()
    :: else
    fi
#endif
  }
#if KILLS > 0
  unless {
    atomic { dead[ME] -> rounds = 0; seen = 0; keep = 0; late = false; result = 0 }
  }
#endif
}

#define KILL(who) atomic { dead[who] = true; asleep[who] = false; kills-- }

/* Kills whom and when it likes, or forbears. */
active proctype Fate() {
  byte kills = KILLS;
  atomic {
    run Process(ROUNDS, false);
    run Process(ROUNDS, false);
    run Process(ROUNDS, true)
  };
#if KILLS > 0
  do
  :: kills > 0 && !dead[1] -> KILL(1)
  :: kills > 0 && !dead[2] -> KILL(2)
  :: kills > 0 && !dead[3] -> KILL(3)
  :: true -> break
  od
#endif
}
