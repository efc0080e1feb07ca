/* The life of one task in src/pool: board.c, worker.c, repair.c, dues.c, and what the host takes for
 * over in wait.c. Each `atomic` is one step in shared memory, and what follows from it in registers.
 * A stack, and the supervisor's list, are sets: a job is linked first and put after that, and must
 * be in none meanwhile. Who ends it, and when it is due, may be at any moment.
 *
 *   (nothing)   a job, which is free and submitted for a second time; one death, of a worker or of
 *               the supervisor, which takes all workers along
 *   TWO_DEATHS  two of them; one life, and one worker
 *   CANCEL      the host cancels once; one death, and one worker
 *   FULL        the lane of the supervisor is full once; one death, one life
 *   BROKEN_n    what must be found
 *
 * Checked: no two living workers are in a job; a job is linked only when it is in no stack or list;
 * each is settled once, and never lost (an invalid end state: the host waits for ever). */
#if defined(BROKEN_4) || defined(BROKEN_5) || defined(BROKEN_12)
#define TWO_DEATHS
#elif defined(BROKEN_7)
#define CANCEL
#elif defined(BROKEN_11)
#define FULL
#endif

#define JOBS 1
#ifdef TWO_DEATHS
#define KILLS 2
#else
#define KILLS 1
#endif
#if defined(TWO_DEATHS) || defined(FULL)
#define LIVES 1
#else
#define LIVES 2
#endif
#if defined(TWO_DEATHS) || defined(CANCEL)
#define ALL_WORKERS BIT(1)
#else
#define ALL_WORKERS (BIT(1) | BIT(2))
#endif
#define RETRIES 1

#define SUPERVISOR 3 /* Fate is 0, 1 and 2 are workers, 4 is the host */
#define ME (_pid)
#define BIT(number) (1 << (number))

/* A word: the state, the worker, the sequence, which is the life. */
#define FREE 0
#define QUEUED 1
#define RUNNING 2
#define AGAIN 3
#define DONE 4
#define FAILED 5
#define WORD(state, worker, life) ((state) + (worker) * 8 + (life) * 32)
#define STATE(word) ((word) & 7)
#define WORKER(word) (((word) >> 3) & 3)
#define WITH(word, state, worker) (((word) & ~31) + WORD(state, worker, 0))
#define IS_OVER(word) (STATE(word) >= DONE)

/* Lanes: 0 is the supervisor's, 1 the host's. A slot is never used twice here. */
#define PUTS 6
#define HAS(lane) (head[lane] != tail[lane])

byte words[3]; /* jobs are 1 and 2; 0 is none */
byte attempts[3];
bool was_again[3], cancelled[3];
byte slots[2 * PUTS], head[2], tail[2];
byte looks[SUPERVISOR + 1], line[SUPERVISOR + 1]; /* line.looks, line.job */
byte done, again;                                 /* stacks */
byte due;                                         /* the supervisor's own, and gone with it */
byte deaths;
byte dying, dead;        /* who is killed takes no step any more; and is not replaced yet */
bool dies;               /* the supervisor */
byte orphans;            /* die with it, sooner or later */

/* What the code does not know. */
byte runner[3];
bool is_served; /* the host, with all: a death is of no interest */
#ifdef BROKEN_4
bool has_tried[3]; /* attempts or deaths of it are known */
#define TRIED(it) has_tried[it] = true
#else
#define TRIED(it) skip
#endif

#define IS_DEAD(who) ((dead | dying) & BIT(who))
#define IN_LINES(it) (looks[1] == it || looks[2] == it || looks[SUPERVISOR] == it)

inline put(lane, it) {
  atomic {
    assert(tail[lane] < PUTS);
    slots[lane * PUTS + tail[lane]] = it;
    tail[lane]++
  } /* pool.lane.put */
}

/* It is linked, and put; whoever read a list that it is in would be led astray, and in the next life
 * it is not over. */
#define PUSH(stack, it, state)                    \
  assert(!((done | again | due) & BIT(it)));      \
  assert(words[it] == WITH(word, state, pusher)); \
  stack = stack | BIT(it)

/* mpx_job_end(), from `word` */
inline end_job(it, state, who) {
  atomic {
    if
    :: words[it] == word -> words[it] = WITH(word, state, who); won = true; runner[it] = 0
    :: else -> won = false
    fi
  }; /* pool.job.over */
  if
  :: atomic { won -> pusher = who; PUSH(done, it, state); pusher = 0 } /* pool.job.pushed */
  :: !won
  fi
}

/* mpx_job_again(): nobody else takes it from RUNNING */
inline try_again(it) {
  atomic {
    was_again[it] = true;
    words[it] = WITH(word, AGAIN, WORKER(word));
    runner[it] = 0
  }; /* pool.job.again */
  atomic { pusher = WORKER(word); PUSH(again, it, AGAIN); pusher = 0 }
}

/* ---- workers --------------------------------------------------------------------------------- */

/* try_job(): a CAS that fails is a look that came later */
inline claim() {
  word = words[job];
  if
  :: STATE(word) == QUEUED ->
    word = WITH(word, RUNNING, ME);
    words[job] = word;
    assert(runner[job] == 0 || IS_DEAD(runner[job]));
    runner[job] = ME
  :: else -> word = 0
  fi /* pool.job.claimed */
}

inline run_job() {
  if
  :: end_job(job, DONE, ME)
  :: attempts[job] < RETRIES ->
    atomic {
      TRIED(job);
      attempts[job]++
    };
    try_again(job)
  :: attempts[job] >= RETRIES -> end_job(job, FAILED, ME)
  fi
}

proctype Worker() {
  byte job, at, word, lane, pusher;
  bool won;
end_start:
  {
end_alive:
    do
    :: atomic {
        if
        :: HAS(0) -> lane = 0
        :: HAS(1) -> lane = 1
        fi;
        at = head[lane];
        job = slots[lane * PUTS + at]
      };
      looks[ME] = job;
      atomic {
        if
        :: head[lane] == at -> line[ME] = job;
#ifndef BROKEN_6
          claim()
#endif
        :: else
        fi
      };
#ifdef BROKEN_6 /* a store instead of the CAS */
      if
      :: line[ME] == job && STATE(words[job]) == QUEUED -> atomic { 
          word = WITH(words[job], RUNNING, ME);
          words[job] = word;
          assert(runner[job] == 0 || IS_DEAD(runner[job]));
          runner[job] = ME
        }
      :: else
      fi;
#endif
      atomic {
        if
        :: head[lane] == at -> head[lane] = at + 1
        :: else
        fi
      };
      if
      :: word != 0 ->
#ifdef BROKEN_8 /* it is out of the line before it is in a stack */
        atomic { line[ME] = 0; looks[ME] = 0 };
#endif
        run_job()
      :: word == 0
      fi;
      atomic { line[ME] = 0; looks[ME] = 0; job = 0; at = 0; word = 0; lane = 0; won = false }
    od
  } unless {
    atomic {
      dying & BIT(ME) -> dying = dying & ~BIT(ME);
      dead = dead | BIT(ME);
      job = 0; at = 0; word = 0; lane = 0; won = false; pusher = 0
    }
  };
end_dead:
  atomic { !(dead & BIT(ME)) -> goto end_start }
}

/* ---- the supervisor -------------------------------------------------------------------------- */

/* mpx_dues_take() */
#define TAKE_AGAIN due = due | again; again = 0

/* list_again() */
inline list_again(it) {
  TAKE_AGAIN;
  if
#ifdef BROKEN_10 /* it may be listed */
  :: true ->
#else
  :: !(due & BIT(it)) ->
#endif
    assert(!(due & BIT(it)));
    due = due | BIT(it)
#ifndef BROKEN_10
  :: due & BIT(it)
#endif
  fi
}

/* repair_job(), mpx_repair(); nobody else changes what the dead had */
inline repair() {
  atomic {
    job = line[number];
    word = words[job];
    if
#ifndef BROKEN_3 /* what is in no stack is lost */
    :: job && STATE(word) == AGAIN && WORKER(word) == number -> list_again(job); next = nothing
#endif
    :: job && STATE(word) == RUNNING && WORKER(word) == number ->
      if
      :: next = retry /* not blamed */
      :: attempts[job] < RETRIES -> TRIED(job); attempts[job]++; next = retry
      :: attempts[job] >= RETRIES -> next = fail /* pool.repair.blames */
      fi
    :: else -> next = nothing
    fi
  };
  if
  :: next == retry -> try_again(job)
  :: next == fail -> end_job(job, FAILED, number)
  :: next == nothing
  fi; /* pool.repair.done */
#ifdef BROKEN_12 /* told before the line is empty, and nobody looks again */
  deaths++;
#endif
  atomic { line[number] = 0; looks[number] = 0 };
  atomic {
#ifndef BROKEN_12
    deaths++;
#endif
    job = 0; word = 0; won = false; next = 0
  }
}

/* take_back() */
inline take_back() {
  word = words[job];
  atomic {
    if
#ifdef BROKEN_4 /* who was not blamed has not tried */
    :: words[job] == word && has_tried[job] && STATE(word) == QUEUED ->
#elif defined(BROKEN_5) /* it stays QUEUED, in no lane */
    :: false ->
#else
    :: words[job] == word && was_again[job] && STATE(word) == QUEUED ->
#endif
      words[job] = WITH(word, AGAIN, 0)
    :: else
    fi
  };
  atomic {
    if
    :: STATE(words[job]) == AGAIN -> assert(!((due | again) & BIT(job))); due = due | BIT(job)
    :: else
    fi;
    word = 0
  }
}

/* queue_due(); nobody else takes it from AGAIN */
inline queue_due() {
  atomic {
    word = words[job];
    next = (STATE(word) != AGAIN -> nothing : (cancelled[job] -> fail : retry));
    if
    :: next != retry -> due = due & ~BIT(job)
    :: else
    fi
  };
  if
  :: next == nothing
  :: next == fail ->
    looks[SUPERVISOR] = job;
    end_job(job, FAILED, SUPERVISOR);
    looks[SUPERVISOR] = 0
  :: next == retry ->
    atomic {
      assert(words[job] == word);
      word = WITH(word, QUEUED, 0);
      words[job] = word;
      due = due & ~BIT(job)
    }; /* pool.due.queued */
    if
    :: put(0, job)
#ifdef FULL
    :: atomic {
        fulls > 0 -> /* the lane is full; it may have been taken by an older slot */
        fulls--;
        if
#ifdef BROKEN_11 /* it is put back whoever has it */
        :: true ->
#else
        :: words[job] == word ->
#endif
          words[job] = WITH(words[job], AGAIN, 0);
          due = due | BIT(job)
        :: words[job] != word
        fi
      }
#endif
    fi
  fi;
  atomic { word = 0; won = false; next = 0; job = 0 }
}

mtype = { nothing, retry, fail };

proctype None() { end_none: false }

proctype Supervisor() {
  byte number, job, word, buried, pusher;
  bool won, succeeds;
  mtype next;
#ifdef FULL
  byte fulls = 1;
#endif
end_start:
  {
    if
    :: succeeds -> /* mpx_crew_take_over(), mpx_repair_after_supervisor() */
      atomic { dead == ALL_WORKERS -> number = 1 };
      repair();
      if
      :: ALL_WORKERS & BIT(2) -> number = 2; repair()
      :: else
      fi;
      atomic {
#ifndef BROKEN_9 /* what is on the stack is listed a second time */
        again = 0;
#endif
        due = 0;
        looks[SUPERVISOR] = 0;
        job = 1
      };
      take_back();
#if JOBS == 2
      job = 2;
      take_back();
#endif
      atomic { job = 0; number = 0; buried = ALL_WORKERS; deaths++ }
    :: !succeeds
    fi;
end_alive:
    do
    :: atomic { /* mpx_crew_collect() */
        dead & ~buried -> number = (dead & ~buried & BIT(1) -> 1 : 2); buried = buried | BIT(number)
      };
      repair();
      number = 0
    :: atomic {
        again || due ->
        TAKE_AGAIN;
        if
        :: due & BIT(1) -> job = 1
        :: due & BIT(2) -> job = 2
        fi
      };
      queue_due()
    :: atomic { buried -> dead = dead & ~buried; buried = 0 } /* mpx_crew_start() */
    od
  } unless {
    atomic {
      dies -> dies = false; succeeds = true; number = 0; job = 0; word = 0; buried = 0; won = false;
      next = 0; pusher = 0
    }
  };
  goto end_start
}

/* ---- the host -------------------------------------------------------------------------------- */

/* settle() */
inline settle(it) {
  if
  :: future[it] && IS_OVER(words[it]) ->
    assert(!(settled & BIT(future[it])));
    settled = settled | BIT(future[it]);
    future[it] = 0
  :: else
  fi
}

/* settle_done() and, of what is `lost`, the rest; in one step but for the exchange. */
inline settle_all(lost) {
  if
  :: (done | lost) & BIT(1) -> settle(1)
  :: else
  fi;
  if
  :: (done | lost) & BIT(2) -> settle(2)
  :: else
  fi;
  done = 0
}

/* A job's part of look_for_lost(). */
inline suspect_it(it) {
  if
  :: future[it] && IS_OVER(words[it]) ->
#ifndef BROKEN_2 /* who ended it is about to put it on the stack */
    found = looks[1] == it;
    found = found || looks[2] == it;
    found = found || looks[SUPERVISOR] == it;
#endif
    atomic {
      if
      :: found -> found = false
      :: else -> suspect = suspect | BIT(it)
      fi
    }
  :: else
  fi
}

#define IS_UNSETTLED(it) (future[it] && IS_OVER(words[it]) && !(suspect & BIT(it)))
inline look_for_lost() {
  suspect_it(1);
#if JOBS == 2
  suspect_it(2);
#endif
  atomic {
    left = IS_UNSETTLED(1) || IS_UNSETTLED(2);
    settle_all(suspect);
    suspect = 0
  }
}

/* free_job(), mpx_submit_end(); another life */
inline submit(it) {
  atomic {
    lives--;
    words[it] = WITH(words[it], FREE, 0);
    was_again[it] = false;
    attempts[it] = 0;
    cancelled[it] = false
#ifdef BROKEN_4
    ; has_tried[it] = false
#endif
  };
  atomic {
    life++;
    future[it] = life;
    words[it] = WORD(QUEUED, 0, life)
  };
  put(1, it)
}

/* mpx_future_cancel_locked() */
inline cancel(it) {
  atomic { word = (future[it] && !IS_OVER(words[it]) -> words[it] : 0) };
  if
  :: word ->
    cancelled[it] = true;
    if
    :: atomic {
#ifdef BROKEN_7 /* a store instead of the CAS */
        STATE(word) == QUEUED ->
#else
        STATE(word) == QUEUED && words[it] == word ->
#endif
        word = WITH(word, RUNNING, 0); words[it] = word
      };
      end_job(it, FAILED, 0)
    :: else
    fi
  :: !word
  fi;
  atomic { word = 0; won = false }
}

/* A look that would find the same is left out. */
#define IS_LEFT(it) (future[it] && IS_OVER(words[it]) && !IN_LINES(it))

proctype Host() {
  byte word, lives = LIVES, life, settled, suspect, seen, pusher;
  byte future[3];
  bool won, found, left;
#ifdef CANCEL
  bool cancels = true;
#endif
  do
  :: lives > 0 && !future[1] -> submit(1)
#if JOBS == 2
  :: lives > 0 && !future[2] -> submit(2)
#endif
#ifdef CANCEL
  :: cancels -> cancels = false; cancel(1)
#endif
  :: atomic { settled == BIT(LIVES + 1) - 2 -> settled = 0; is_served = true }; break
  :: atomic { done -> settle_all(0) }
#ifndef BROKEN_1 /* nobody looks for what is in no stack */
  :: atomic {
      deaths != seen || (left && (IS_LEFT(1) || IS_LEFT(2))) -> seen = deaths; left = false
    };
    look_for_lost();
#ifdef BROKEN_12
    left = false
#endif
#endif
  od
}

/* ---------------------------------------------------------------------------------------------- */

#define KILL(who)                                              \
  atomic {                                                     \
    kills > 0 && !is_served && (ALL_WORKERS & BIT(who)) && !IS_DEAD(who) -> dying = dying | BIT(who);    \
    orphans = orphans & ~BIT(who);                             \
    kills--                                                    \
  }
#define KILL_ORPHAN(who)                                       \
  atomic {                                                     \
    orphans & BIT(who) -> dying = dying | BIT(who);            \
    orphans = orphans & ~BIT(who)                              \
  }

/* Kills whom and when it likes, or forbears; orphans it must. */
active proctype Fate() {
  byte kills = KILLS;
  atomic {
    run Worker();
    if
    :: ALL_WORKERS & BIT(2) -> run Worker()
    :: else -> run None() /* so that the others bear the same numbers */
    fi;
    run Supervisor();
    run Host()
  };
end_fate:
  do
  :: KILL(1)
  :: KILL(2)
  :: atomic {
      kills > 0 && !is_served -> dies = true;
      orphans = ALL_WORKERS & ~(dead | dying);
      due = 0;
      kills--
    }
  :: KILL_ORPHAN(1)
  :: KILL_ORPHAN(2)
  od
}
