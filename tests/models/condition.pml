/* Waiting and telling of src/sync/condition.c. Each `atomic` is one step in shared memory, and what
 * follows from it in registers. Lock and guard are taken in one step, when free or from the dead:
 * mutex.pml shows that.
 *
 *   (nothing)   one death, and looks
 *   TWO_DEATHS  two: of who was told, and of who passes that on
 *   HEIRS       one, when the first waiter has been told and is dead already
 *   NO_LOOKS    neither deaths nor looks: the wakes alone must do
 *   LATE        a waiter may come after the notification: it gets a dead one's, see the README
 *   BROKEN_n    what must be found
 *
 * Checked: who is told is the oldest of the living that were not; no return without a notification;
 * when the system stands still, nobody who lives sleeps who was told, and if one sleeps who was
 * not, every notification has made somebody return. For that all stand from the beginning; who dies
 * while it stands in has not stood, or has. */
#if defined(BROKEN_2) || defined(BROKEN_5)
#define NO_LOOKS /* a look repairs these: what must be found is that it is needed */
#endif
#ifdef BROKEN_7
#define TWO_DEATHS
#endif
#if defined(BROKEN_6) || defined(BROKEN_8) || defined(BROKEN_9)
#define HEIRS
#endif

#if defined(NO_LOOKS)
#define KILLS 0
#elif defined(TWO_DEATHS)
#define KILLS 2
#else
#define KILLS 1
#endif

#define WAITERS 3
#define PROCESSES 5
#define ME (_pid) /* Fate is 0, 1 to 3 wait, 4 and 5 notify */

byte lock, guard;         /* who has it */
bool dead[PROCESSES + 1]; /* at once for all to see: who sees it later might as well look first */

/* The roster. Each waiter has its place: reusing an entry needs the guard and a free entry, and who
 * frees without the guard compares the thread. */
#define WAITING 0 /* entry.word */
#define TOLD 1
#define HEIR 2
#define LEFT 3
bool stands[WAITERS + 1]; /* entry.thread is set */
byte number[WAITERS + 1];
byte word[WAITERS + 1];
byte news[WAITERS + 1];
bool asleep[WAITERS + 1]; /* in the kernel's queue of that word */
byte next_number = 1;

/* What the code does not know. */
byte sent, returned;

#define TAKE(one) atomic { one == 0 || dead[one] -> one = ME }
#define IS_TOLD(who) (word[who] == TOLD || word[who] == HEIR)
#define IS_OLDER(who) \
  (stands[who] && word[who] == WAITING && !dead[who] && number[who] < number[oldest])
#define HAS_DIED_TOLD(who) (stands[who] && IS_TOLD(who) && dead[who])
#define WAITS(who) (asleep[who] && !dead[who])

inline see(who) {
  if
  :: stands[who] && word[who] == WAITING && !dead[who] &&
      (oldest == 0 || number[who] < number[oldest]) ->
    oldest = who
  :: else
  fi
}

/* tell(): `how` and `what` go to the oldest, who is 0 when there is none. */
inline tell(how, what) {
  do
  :: oldest = 0;
    atomic { see(1) };
    atomic { see(2) };
    atomic { see(3) };
    if
    :: oldest == 0 -> break
    :: oldest != 0 ->
      news[oldest] = what; /* condition.tells */
      atomic {
        if
        :: word[oldest] == WAITING ->
          assert(!IS_OLDER(1) && !IS_OLDER(2) && !IS_OLDER(3));
#ifdef LATE
          assert(how == TOLD || number[oldest] < what);
#endif
          word[oldest] = how;
          sent = sent + (how == TOLD);
          told = true
        :: else -> told = false /* it has left meanwhile */
        fi
      }; /* condition.told */
      if
      :: told ->
#ifndef BROKEN_5 /* nobody is woken */
        asleep[oldest] = false;
#endif
        break
      :: else
      fi
    fi
  od
}

#define IS_HEIR(who) (who != at && stands[who] && IS_TOLD(who) && news[who] == news[at])

/* pass_on(): what `at` was told, which is dead. */
inline inherit() {
  heir = false;
  atomic { heir = heir || IS_HEIR(1) };
  atomic { heir = heir || IS_HEIR(2) };
  atomic { heir = heir || IS_HEIR(3) };
  if
#ifdef BROKEN_9 /* the heir has left since, and freed `at` before its own */
  :: !heir ->
#else
  :: !heir && stands[at] ->
#endif
#ifdef BROKEN_7 /* freed before the next is told */
    stands[at] = false;
#endif
#ifdef BROKEN_6 /* the heir bears another number */
    atomic { other = next_number; next_number++ };
    tell(HEIR, other)
#else
    tell(HEIR, news[at])
#endif
  :: else
  fi
}

inline pass_on() {
  at = 1;
  do
  :: at > WAITERS -> break
  :: at <= WAITERS && stands[at] && dead[at] ->
#ifndef BROKEN_1 /* a notification goes with the dead */
    if
    :: IS_TOLD(at) -> inherit()
    :: else
    fi;
#endif
    stands[at] = false; /* condition.passed_on is before */
    at++
  :: at <= WAITERS && !(stands[at] && dead[at]) -> at++
  od;
  atomic { at = 0; oldest = 0; heir = false; told = false }
}

/* notify(); `count` becomes what is left of it. */
inline notify() {
  pass_on();
  do
  :: count == 0 -> break
  :: count != 0 ->
    atomic { other = next_number; next_number++ };
    tell(TOLD, other);
    if
    :: oldest == 0 -> break
    :: else -> count--
    fi
  od;
  atomic { oldest = 0; told = false; other = 0 }
}

/* A look that would find nothing is left out: it does nothing but sleep again. So the system
 * stands still when only such looks are left. The waiter's own word is among what it finds: who
 * told it may have died before the wake. */
inline sleep() {
#ifdef BROKEN_2 /* the kernel does not compare */
  asleep[ME] = true; /* condition.waits */
#else
  asleep[ME] = word[ME] == WAITING; /* condition.waits */
#endif
end_asleep:
  atomic {
    if
    :: !asleep[ME]
#ifndef NO_LOOKS
    :: asleep[ME] && (word[ME] != WAITING || HAS_DIED_TOLD(1) || HAS_DIED_TOLD(2) || HAS_DIED_TOLD(3)) ->
      looks = true
#endif
    :: asleep[ME] && has_deadline -> late = true
    fi;
    asleep[ME] = false
  } /* condition.woken */
}

/* await_word() */
inline await_word() {
  do
  :: word[ME] != WAITING || late -> break
  :: word[ME] == WAITING && !late ->
    sleep();
    if
    :: looks || late -> /* look_after_others(); who finds nothing does nothing */
      looks = false;
      if
      :: HAS_DIED_TOLD(1) || HAS_DIED_TOLD(2) || HAS_DIED_TOLD(3) ->
        TAKE(guard);
        pass_on();
        guard = 0
      :: late /* somebody else has the guard */
      :: else
      fi
    :: else
    fi
  od
}

#define FREE_OTHER(who) \
  atomic { \
    if \
    :: who != ME && stands[who] && IS_TOLD(who) && news[who] == news[ME] -> stands[who] = false \
    :: else \
    fi \
  }

/* step_out(), without the guard */
inline free_own() {
  atomic {
#ifdef BROKEN_4 /* who was told after its deadline does not know */
    was_told = word[ME] != WAITING && !late;
#else
    was_told = word[ME] != WAITING;
#endif
    heir = word[ME] == HEIR;
    if
    :: !was_told -> word[ME] = LEFT
    :: else
    fi
  };
#ifndef BROKEN_8 /* what was inherited is told once more */
  if
  :: heir -> FREE_OTHER(1); FREE_OTHER(2); FREE_OTHER(3)
  :: else
  fi;
#endif
  atomic {
    heir = false;
    stands[ME] = false;
#ifndef BROKEN_3
    returned = returned + was_told;
    assert(returned <= sent)
#endif
  }
}

proctype Waiter(bool has_deadline) {
  byte oldest, at, other;
  bool late, looks, was_told, heir, told;
  {
    if
    :: number[ME] == 0 ->
      TAKE(lock);
      TAKE(guard); /* stand_in() */
      atomic { number[ME] = next_number; next_number++ };
      stands[ME] = true;
      guard = 0; /* condition.stands */
      lock = 0
    :: else
    fi;
    await_word();
#ifdef BROKEN_3 /* it steps out before it has the lock: a death in between takes the news with it */
    free_own();
    TAKE(lock);
    returned = returned + was_told;
#else
    TAKE(lock); /* condition.back */
    free_own();
#endif
    lock = 0
  }
#if KILLS > 0
  unless {
    atomic {
      dead[ME] -> oldest = 0; at = 0; other = 0; late = false; looks = false; was_told = false;
      heir = false; told = false
    }
  }
#endif
}

proctype Notifier(byte count) {
  byte oldest, at, other;
  bool heir, told;
  {
    TAKE(lock);
    TAKE(guard);
    notify();
    guard = 0;
    lock = 0
  }
#if KILLS > 0
  unless {
    atomic { dead[ME] -> oldest = 0; at = 0; other = 0; count = 0; heir = false; told = false }
  }
#endif
}

inline stand(who) {
  number[who] = next_number;
  next_number++;
  stands[who] = true
}

#define KILL(who) kills > 0 && !dead[who] -> atomic { dead[who] = true; kills--

/* Kills whom and when it likes, or forbears. */
active proctype Fate() {
  byte kills = KILLS;
  atomic {
    stand(1);
    stand(2);
#ifndef LATE
    stand(3);
#endif
#ifdef HEIRS
    word[1] = TOLD;
    news[1] = next_number;
    next_number++;
    sent = 1;
    dead[1] = true;
#endif
    if
    :: run Waiter(true); run Waiter(false); run Waiter(false)
#ifdef HEIRS
    :: run Waiter(false); run Waiter(true); run Waiter(false)
    :: run Waiter(false); run Waiter(false); run Waiter(true)
#endif
#if KILLS == 0 /* else it takes too long */
    :: run Waiter(false); run Waiter(true); run Waiter(false)
    :: run Waiter(false); run Waiter(false); run Waiter(true)
#endif
    fi;
    run Notifier(1);
#if !defined(TWO_DEATHS) && !defined(HEIRS)
    run Notifier(1)
#endif
  };
#if KILLS > 0
  do
  :: KILL(1); asleep[1] = false }
  :: KILL(2); asleep[2] = false }
  :: KILL(3); asleep[3] = false }
  :: KILL(4) }
#if !defined(TWO_DEATHS) && !defined(HEIRS)
  :: KILL(5) }
#endif
  :: true -> break
  od;
#endif
  timeout;
  assert(!(WAITS(1) && IS_TOLD(1)) && !(WAITS(2) && IS_TOLD(2)) && !(WAITS(3) && IS_TOLD(3)));
#ifndef LATE
  assert(returned == sent || !(WAITS(1) || WAITS(2) || WAITS(3)))
#endif
}
