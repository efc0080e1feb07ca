/* When the memory of a map goes: src/pool/retire.c against take_from() of worker.c, repair.c, and the
 * looks of the supervisor in dues.c and watch.c. Each `atomic` is one step in shared memory, and what
 * follows from it in registers.
 *
 * A map has one input that was put aside: the job of the map is memory that is a job for ever, the
 * input's job is freed with the map. When that is over the host frees both, and submits the job of
 * the map again, as a single one.
 *
 *   (nothing)   no deaths; two workers and the supervisor, which looks what they are in
 *   DEATH       one death of a worker, which is repaired; the supervisor does not look
 *   CANCEL      no deaths; the host cancels the map, and the supervisor ends it
 *   SUCCESSOR   the supervisor is one, and looks through all jobs; no workers
 *   BROKEN_n    what must be found
 *
 * Checked: nobody looks at what is freed, or at a job's map when the job has none; in the end all is
 * freed (an invalid end state: the host waits for ever). */
#if defined(BROKEN_3)
#define DEATH
#elif defined(BROKEN_5)
#define CANCEL
#elif defined(BROKEN_7)
#define SUCCESSOR
#endif

#define SUPERVISOR 3 /* Fate is 0, 1 and 2 are workers, 4 is the host */
#define ME (_pid)

#define MAP 1 /* jobs; 0 is none */
#define ITEM 2

#define FREE 0
#define QUEUED 1
#define RUNNING 2
#define AGAIN 3
#define OVER 4

byte state[3], life[3], item_worker; /* words */
bool has_map = true; /* kind and map of the job of the map: else it is a single one */
bool is_freed;       /* map and item */
bool cancelled;
byte slots[6], head, tail; /* the lane of what is tried again */
byte looks[4], line[4];   /* line.looks, line.job */
bool dying, dead, listed; /* `listed`: on the stack, or in the supervisor's list */
byte piece;               /* the rest of the map: 0, who has it, or DONE */
#define DONE 9

/* Each look at what may be freed. */
#define DEREF(job) assert(job == MAP || !is_freed)
#define DEREF_MAP assert(!is_freed)

/* mpx_map_check(): the item, and the piece, are over; seq_cst */
inline check_map() {
  atomic {
    DEREF_MAP;
    all_over = piece == DONE && state[ITEM] == OVER;
    seen = life[MAP]
  };
  atomic {
    if
    :: all_over && state[MAP] == QUEUED && life[MAP] == seen -> state[MAP] = OVER
    :: else
    fi;
    all_over = false
  }
}

/* mpx_job_again() and the push */
inline try_again(job) {
  state[job] = AGAIN;
  listed = true
}

/* ---- workers --------------------------------------------------------------------------------- */

inline run_item() {
  atomic { DEREF(ITEM); DEREF_MAP };
  if
  :: retries > 0 -> retries--; try_again(ITEM)
  :: atomic { DEREF(ITEM); state[ITEM] = OVER }
  fi;
  check_map()
}

/* mpx_worker_run_map() */
inline run_map() {
  atomic { DEREF_MAP; found = !cancelled && piece == 0 }; /* goes_on(), find_end() */
  if
  :: found ->
    atomic {
      DEREF_MAP;
      found = piece == 0;
      piece = (piece == 0 -> ME : piece)
    };
    if
    :: found ->
      atomic { DEREF_MAP; piece = DONE };
      check_map()
    :: !found
    fi
  :: !found
  fi
}

/* What the slot at `at` names. */
inline take() {
#ifdef BROKEN_1 /* the lane is looked at before the line names the job */
  if
  :: head == at -> looks[ME] = job; line[ME] = job;
#else
  looks[ME] = job;
#ifdef BROKEN_3 /* who repairs goes by what the dead may only have looked at */
  line[ME] = job;
#endif
  if
#ifdef BROKEN_2 /* nobody looks whether it is in its slot still */
  :: true ->
#else
  :: head == at ->
#endif
    line[ME] = job;
#endif
    atomic {
      DEREF(job);
      seen = life[job];
      found = state[job] == QUEUED
    };
    if
    :: found && job == ITEM ->
      atomic { /* claim() */
        DEREF(job);
        found = state[job] == QUEUED && life[job] == seen;
        state[job] = (found -> RUNNING : state[job]);
        item_worker = (found -> ME : item_worker)
      };
      atomic { head = (head == at -> at + 1 : head) };
      if
      :: found -> run_item()
      :: !found
      fi
    :: found && job == MAP ->
      if
      :: has_map -> run_map()
      :: !has_map
      fi;
      atomic { head = (head == at -> at + 1 : head) }
    :: !found -> atomic { head = (head == at -> at + 1 : head) }
    fi
  :: else
  fi;
#ifdef BROKEN_4 /* the line is cleared the wrong way round: the job is followed, and not kept */
  looks[ME] = 0;
  line[ME] = 0
#else
  line[ME] = 0;
  looks[ME] = 0
#endif
}

proctype Worker() {
  byte at, job, seen, retries = 1;
  bool found, all_over;
end_start:
  {
end_alive:
    do
    :: atomic { head != tail -> at = head; job = slots[at] };
      take();
      atomic { at = 0; job = 0; seen = 0; found = false }
    :: atomic { /* the lane of the host: its slot names the map until it is found to be over */
        state[MAP] == QUEUED && has_map && piece == 0 && !cancelled -> job = MAP
      };
      looks[ME] = job;
      line[ME] = job;
      atomic { found = state[MAP] == QUEUED && has_map };
      if
      :: found -> run_map()
      :: !found
      fi;
      line[ME] = 0;
      looks[ME] = 0;
      atomic { job = 0; found = false; seen = 0 }
    od
  }
#ifdef DEATH
  unless {
    atomic {
      dying && ME == 1 -> dying = false; dead = true; at = 0; job = 0; seen = 0; found = false;
      all_over = false
    }
  };
end_dead:
  atomic { !dead -> goto end_start }
#endif
}

/* ---- the supervisor -------------------------------------------------------------------------- */

/* queue_due(). An older slot may name the job: of a worker that died before it moved the head. */
inline queue_due() {
#ifndef BROKEN_6 /* whoever is quick may end it, and so the map, before it is in the lane */
  looks[SUPERVISOR] = ITEM;
#endif
  atomic {
    DEREF(ITEM);
    found = state[ITEM] == AGAIN && !cancelled;
    state[ITEM] = (found -> QUEUED : state[ITEM])
  }; /* pool.due.queued */
  if
  :: found ->
    atomic { slots[tail] = ITEM; tail++ };
    DEREF(ITEM) /* its kind */
  :: !found
  fi;
  looks[SUPERVISOR] = 0
}

/* watch_one() */
inline watch(who) {
  job = line[who];
  if
  :: job != 0 ->
    looks[SUPERVISOR] = job;
#ifndef BROKEN_8 /* the worker may be out of it, and the host have looked */
    if
    :: line[who] == job ->
#endif
      atomic {
        DEREF(job);
        found = job == ITEM
      };
      if
      :: found -> DEREF_MAP
      :: !found
      fi
#ifndef BROKEN_8
    :: else
    fi
#endif
  :: else
  fi;
  atomic { looks[SUPERVISOR] = 0; job = 0; found = false }
}

/* look_at_map() */
inline end_cancelled() {
  looks[SUPERVISOR] = MAP;
  atomic { found = state[MAP] == QUEUED && has_map };
  if
  :: found ->
    atomic { /* hold_items() */
      DEREF_MAP;
      state[ITEM] = (state[ITEM] == QUEUED -> AGAIN : state[ITEM])
    };
#ifndef BROKEN_5 /* the map ends while somebody is in it */
    found = !looks[1];
    found = found && !looks[2];
#endif
    if
    :: found ->
      atomic { DEREF_MAP; listed = false };
      state[MAP] = OVER
    :: !found
    fi
  :: !found
  fi;
  atomic { looks[SUPERVISOR] = 0; found = false }
}

/* mpx_repair() */
inline repair() {
  job = line[1];
#ifdef BROKEN_3
  job = looks[1];
#endif
  if
  :: job == ITEM ->
    atomic {
      DEREF(ITEM);
      found = item_worker == 1 && (state[ITEM] == RUNNING || (state[ITEM] == AGAIN && !listed))
    };
    if
    :: found -> try_again(ITEM)
    :: !found -> check_map()
    fi
  :: job == MAP ->
    atomic { found = state[MAP] == QUEUED && has_map };
    if
    :: found ->
      atomic { DEREF_MAP; piece = (piece == 1 -> 0 : piece) };
      check_map()
    :: !found
    fi
  :: job == 0
  fi;
  line[1] = 0;
  looks[1] = 0;
  atomic { dead = false; job = 0; found = false; seen = 0 }
}

proctype Supervisor() {
  byte job, seen;
  bool found, all_over;
#ifdef SUCCESSOR /* mpx_repair_after_supervisor(): it is alone, so that no map is over while it looks */
#ifdef BROKEN_7 /* the kind is that of the life before */
  found = has_map;
  atomic { found = found && state[MAP] == QUEUED };
#else
  found = state[MAP] == QUEUED;
  found = found && has_map;
#endif
  if
  :: found -> assert(has_map)
  :: else
  fi;
  found = false;
#endif
end_alive:
  do
  :: atomic { listed -> listed = false }; queue_due(); found = false
#ifdef CANCEL
  :: atomic { cancelled && state[MAP] == QUEUED && has_map && !looks[1] && !looks[2] };
    end_cancelled()
#elif !defined(DEATH)
  :: line[1] != 0 -> watch(1)
  :: line[2] != 0 -> watch(2)
#endif
  :: dead -> repair()
  od
}

/* ---- the host -------------------------------------------------------------------------------- */

/* is_used(). What the supervisor is about to put in the lane is named by its line; so the lane's end
 * is looked up after that. */
inline release() {
#ifdef BROKEN_9 /* it may still come into the lane */
  lane_tail = tail;
#endif
  do
  :: true ->
    (looks[SUPERVISOR] != ITEM);
#ifndef BROKEN_9
    lane_tail = (lane_tail == 255 -> tail : lane_tail);
#endif
    (head >= lane_tail);
    is_used = looks[1] != 0;
    is_used = is_used || looks[2] != 0;
    is_used = is_used || looks[SUPERVISOR] != 0;
    if
    :: !is_used -> break
    :: is_used -> is_used = false; (looks[1] == 0 && looks[2] == 0 && looks[SUPERVISOR] == 0)
    fi
  od;
  atomic { is_freed = true; has_map = false };
  atomic { state[MAP] = FREE };
  atomic { life[MAP]++; state[MAP] = QUEUED }
}

proctype Host() {
  byte lane_tail = 255;
  bool is_used;
#ifdef CANCEL
  cancelled = true;
#endif
  (state[MAP] == OVER);
  release()
}

active proctype Fate() {
  atomic {
    state[MAP] = QUEUED;
    state[ITEM] = AGAIN;
    listed = true;
    slots[0] = ITEM;
    tail = 1;
#ifdef SUCCESSOR
    state[MAP] = OVER;
    state[ITEM] = OVER;
    listed = false;
    head = 1;
    run Host();
    run Supervisor()
#else
    run Worker();
    run Worker();
    run Supervisor();
    run Host()
#endif
  };
#ifdef DEATH
  if
  :: dying = true
  :: true
  fi
#endif
}
