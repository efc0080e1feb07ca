/* The turnstile of src/sync/turn.[ch], as src/sync/semaphore.c acquires and releases by it. Each
 * `atomic` is one step in shared memory, and what follows from it in registers.
 *
 *   (nothing)  deaths and looks
 *   NO_LOOKS   neither: the wakes alone must do
 *   TRACKED    each permit is a word that says who has it; with either of the above
 *   BROKEN_n   what must be found
 *
 * Checked: when the system stands still, nobody who lives sleeps while a permit is left. With looks
 * that says what the code promises after a death: who sleeps is late by one look at most. */
#if defined(BROKEN_1) || defined(BROKEN_2) || defined(BROKEN_3) || defined(BROKEN_4) || \
  defined(BROKEN_5)
#define NO_LOOKS /* a look repairs these: what must be found is that it is needed */
#endif

#ifdef NO_LOOKS
#define KILLS 0
#define TRIES 2 /* of the first */
#else
#define KILLS 2
#define TRIES 1
#endif

#define WAITED 1
#define STEP 2
#define ALL 9
#define PROCESSES 5

#define ME (_pid) /* Fate is 0 */

byte word;                  /* the turn: STEP for each, and whether anybody may sleep */
bool asleep[PROCESSES + 1]; /* in the kernel's queue of the word */
bool dead[PROCESSES + 1];   /* at once for all to see */

#ifdef TRACKED
byte owners[2];
#define IS_LEFT(i) (owners[i] == 0 || dead[owners[i]])
#define ANY_LEFT (IS_LEFT(0) || IS_LEFT(1))
#else
byte value;
#define ANY_LEFT (value > 0)
#endif

#define SLEEPS(who) (asleep[who] && !dead[who])

/* In one step: at most `count` sleepers are woken, whom the kernel likes. */
inline wake(count, woken) {
  woken = 0;
  do
  :: woken < count && asleep[1] -> asleep[1] = false; woken++
  :: woken < count && asleep[2] -> asleep[2] = false; woken++
  :: woken < count && asleep[3] -> asleep[3] = false; woken++
  :: else -> break
  od
}

/* mpx_turn_next(); goes round never, `break` is its return. */
inline next(count) {
  do
  :: atomic {
#ifndef BROKEN_5
      marked = word & WAITED;
#endif
      if
      :: marked -> marked = false
      :: else -> break
      fi
    };
#ifdef BROKEN_2 /* it does not count: who has looked and sleeps not yet is missed */
    atomic { wake(count, woken); woken = 0; break }
#else
    atomic { word = word + STEP; assert(word < 256 - 2 * STEP); turn = word }; /* turn.counted */
    atomic {
      wake(count, woken);
      if
#ifndef BROKEN_4 /* the mark goes although more may sleep than were woken */
      :: woken == count -> woken = 0; turn = 0; break
#endif
      :: else -> woken = 0
      fi
    };
    atomic { /* wipe_mark() */
      if
      :: word == turn -> word = (turn + STEP) & ~WAITED; turn = 0
      :: else -> turn = 0; break
      fi
    };
#if defined(BROKEN_3) || defined(BROKEN_4) /* who fell asleep before the wipe is missed */
    break
#else
    atomic { wake(ALL, woken); woken = 0; break }
#endif
#endif
  od
}

#ifdef TRACKED
inline take_one(i, from_the_dead) {
  atomic {
    if
    :: !got && (owners[i] == 0 || (from_the_dead && dead[owners[i]])) ->
      owners[i] = ME;
      got = true
    :: else
    fi
  }
}

/* The scan is no single step: what is given behind its back must change the turn. */
inline take() {
  take_one(0, false);
  take_one(1, false);
  take_one(0, true);
  take_one(1, true) /* semaphore.taken */
}

inline look_for_more() {
  more = owners[0] == 0;
  more = more || owners[1] == 0
}

inline give(count) { /* semaphore.gives */
  if
  :: owners[0] == ME -> owners[0] = 0
  :: else -> owners[1] = 0
  fi
}

#else
/* The load and the CAS are one step: a CAS that fails leaves nothing but another load. */
inline take() {
  atomic {
    if
    :: value > 0 -> value--; got = true
    :: else
    fi
  }
}

inline look_for_more() {
  more = value > 0
}

inline give(count) {
  value = value + count
}
#endif

/* mpx_turn_sleep(). A look that would find the same turn and nothing left is left out: it does
 * nothing but sleep again. So the system stands still when only such looks are left. */
inline sleep() {
  asleep[ME] = word == turn; /* semaphore.waits */
end_asleep:
  atomic {
    if
    :: !asleep[ME]
#ifndef NO_LOOKS
    :: asleep[ME] && (word != turn || ANY_LEFT)
#endif
    :: asleep[ME] && has_deadline -> late = true
    fi;
    asleep[ME] = false;
    turn = 0
  } /* semaphore.woken */
}

/* After the mark, in mproc_semaphore_acquire(): who should have taken the rest may have died. */
inline pass_on() {
  look_for_more();
  if
  :: more -> more = false; next(1)
  :: else
  fi
}

/* mproc_semaphore_acquire(), for ever or until a deadline, which may pass at any time. */
inline acquire() {
  take();
  do
  :: got -> break
  :: else ->
    atomic { word = word | WAITED; turn = word }; /* mpx_turn_prepare() */
#ifndef BROKEN_1 /* it does not look again once it has said that it sleeps */
    take();
#endif
    if
    :: got -> turn = 0; pass_on(); break
    :: !got && has_deadline -> turn = 0; break
    :: !got && !late ->
      sleep();
      if
      :: !late -> take() /* before the next mark */
      :: else
      fi;
      if
      :: got -> pass_on(); break
      :: else
      fi
    fi
  od
}

inline release(count) {
#ifdef BROKEN_5 /* it looks for the mark first and gives then */
  marked = word & WAITED;
#endif
  give(count); /* semaphore.given */
  next(count)
}

/* Who has a deadline and leaves must not take a wake with it. */
proctype Waiter(byte rounds; bool has_deadline) {
  byte turn, woken;
  bool marked, got, more, late;
  {
    do
    :: rounds > 0 ->
      acquire();
#ifdef TRACKED
      if
      :: got -> release(1)
      :: else
      fi;
#endif
      atomic { rounds--; got = false; late = false }
    :: else -> break
    od
  }
#if KILLS > 0
  unless {
    atomic {
      dead[ME] -> rounds = 0; turn = 0; woken = 0; marked = false; got = false; more = false;
      late = false
    }
  }
#endif
}

#ifndef TRACKED
proctype Giver(byte rounds, count) {
  byte turn, woken;
  bool marked;
  {
    do
    :: rounds > 0 -> release(count); rounds--
    :: else -> break
    od
  }
#if KILLS > 0
  unless {
    atomic { dead[ME] -> rounds = 0; turn = 0; woken = 0; marked = false }
  }
#endif
}
#endif

#define KILL(who) atomic { dead[who] = true; asleep[who] = false; kills-- }

/* Kills whom and when it likes, or forbears. */
active proctype Fate() {
  byte kills = KILLS;
  atomic {
#if defined(TRACKED)
    run Waiter(TRIES, false);
    run Waiter(1, false);
    run Waiter(1, true)
#elif defined(NO_LOOKS)
    run Waiter(1, false);
    run Waiter(1, false);
    run Waiter(1, true);
    run Giver(1, 1);
    run Giver(1, 1)
#else
    run Waiter(1, false);
    run Waiter(1, true);
    run Giver(1, 2)
#endif
  };
#if KILLS > 0
  do
  :: kills > 0 && !dead[1] -> KILL(1)
  :: kills > 0 && !dead[2] -> KILL(2)
  :: kills > 0 && !dead[3] -> KILL(3)
  :: true -> break
  od;
#endif
  timeout;
  assert(!ANY_LEFT || !(SLEEPS(1) || SLEEPS(2) || SLEEPS(3)))
}
