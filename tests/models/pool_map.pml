/* A map: src/pool/map.c, worker_map.c and the part of repair.c that is about maps. Each `atomic` is
 * one step in shared memory, and what follows from it in registers. An input that was put aside is
 * a job with a word; that it gets from the stack to a lane is what pool_job.pml shows, and one step
 * here. The lane that names the map is a head and a tail.
 *
 *   (nothing)   two inputs, two workers; one death of a worker
 *   TWO_DEATHS  one worker; two deaths, of it or of the supervisor, which takes it along
 *   LEAVE       no deaths; a worker leaves a piece before its end
 *   BROKEN_n    what must be found
 *
 * Checked: an input fails at most once, and is recorded or fails before the map is over, and not
 * after that; the map ends once, and always (an invalid end state: somebody waits for ever). */
#if defined(BROKEN_5)
#define LEAVE
#elif defined(BROKEN_6)
#define TWO_DEATHS
#endif

#ifdef TWO_DEATHS
#define COUNT 2
#define KILLS 2
#define ALL_WORKERS BIT(1)
#elif defined(LEAVE)
#define COUNT 2
#define KILLS 0
#define ALL_WORKERS (BIT(1) | BIT(2))
#else
#define COUNT 2
#define KILLS 1
#define ALL_WORKERS (BIT(1) | BIT(2))
#endif

#define SUPERVISOR 3 /* Fate is 0, 1 and 2 are workers */
#define ME (_pid)
#define BIT(number) (1 << (number))

/* A piece: begin, end, owner. */
#define FREE 4
#define DONE 7
#define PIECE(begin, end, owner) ((begin) * 32 + (end) * 8 + (owner))
#define OWNER(piece) ((piece) & 7)
#define BEGIN(piece) ((piece) >> 5)
#define END(piece) (((piece) >> 3) & 3)

/* Items: one an input, and its worker. */
#define NONE 0
#define RUNNING 1
#define AGAIN 2
#define QUEUED 3
#define OVER 4

#define MAP 9 /* in a line; an item is its input + 1 */
#define NOWHERE 9

byte pieces[COUNT + 1];
byte item[COUNT], item_worker[COUNT];
byte listed; /* items on the stack or in the supervisor's list */
byte given_back;
bool is_over;
byte head, tail = 1;
byte line[4], at[4];
byte changed; /* maps_changed */
byte dying, dead, orphans;
bool dies;

/* What the code does not know. */
byte recorded, failed; /* inputs */

#define IS_DEAD(who) ((dead | dying) & BIT(who))
#define ALL (BIT(COUNT) - 1)
#define FIND_END (pieces[0] == 0 -> 0 : (pieces[1] == 0 -> 1 : (COUNT == 2 || pieces[2] == 0 -> 2 : 3)))
#define BEGIN_OF(index) (index == 0 -> 0 : END(pieces[(index == 0 -> 0 : index - 1)]))
#define IS_TAKEN (BEGIN_OF(FIND_END) >= COUNT)
#define HAS_ITEM(number) (item[number] != NONE)
#define HAS_NOTED(number) ((failed & BIT(number)) || HAS_ITEM(number))

/* mpx_map_put_back() */
inline put_back(index, from) {
  atomic {
    if
    :: from >= END(pieces[index]) -> pieces[index] = pieces[index] | DONE; back = false
    :: else -> pieces[index] = PIECE(from, END(pieces[index]), FREE); back = true
    fi
  }; /* pool.map.put_back, of what is left */
  if
  :: back -> given_back++
  :: !back
  fi
}

#define ARE_OVER(i) (item[i] == NONE || item[i] == OVER)
#if COUNT == 3
#define ITEMS_ARE_OVER (ARE_OVER(0) && ARE_OVER(1) && ARE_OVER(2))
#else
#define ITEMS_ARE_OVER (ARE_OVER(0) && ARE_OVER(1))
#endif
#define IS_DONE(i) (pieces[i] == 0 || OWNER(pieces[i]) == DONE)
#if COUNT == 3
#define PIECES_ARE_DONE (IS_TAKEN && IS_DONE(0) && IS_DONE(1) && IS_DONE(2))
#else
#define PIECES_ARE_DONE (IS_TAKEN && IS_DONE(0) && IS_DONE(1))
#endif

/* is_over(), mpx_map_check(): pieces first, since whoever puts an input aside does it before its piece
 * is done. */
inline check_map() {
#ifdef BROKEN_1 /* items are looked at first */
  atomic { all = ITEMS_ARE_OVER };
  atomic { all = all && PIECES_ARE_DONE };
#else
  atomic { all = PIECES_ARE_DONE };
#ifndef BROKEN_2 /* not at all */
  atomic { all = all && ITEMS_ARE_OVER };
#endif
#endif
  if
  :: all && !is_over -> /* pool.map.over */
    atomic {
      if
      :: !is_over -> is_over = true; assert((recorded | failed) == ALL)
      :: else
      fi
    }
  :: else
  fi;
  all = false
}

inline fail(input) {
  atomic {
    assert(!is_over && !(failed & BIT(input)));
    failed = failed | BIT(input)
  } /* pool.map.failure_noted */
}

inline put_aside(input, who) {
  atomic {
    assert(item[input] == NONE);
    item[input] = RUNNING;
    item_worker[input] = who
  }; /* pool.map.put_aside */
  item[input] = AGAIN;
  listed = listed | BIT(input)
}

/* ---- workers --------------------------------------------------------------------------------- */

#define TAKE_FREE(i)                                                                \
  seen != given_back && OWNER(pieces[i]) == FREE ->                                 \
    pieces[i] = PIECE(BEGIN(pieces[i]), END(pieces[i]), ME); index = i; taken = true

/* mpx_map_take(): a CAS that fails is a look that came later */
inline take() {
  atomic {
    taken = false;
    if
    :: TAKE_FREE(0)
    :: TAKE_FREE(1)
#if COUNT == 3
    :: TAKE_FREE(2)
#endif
    :: else ->
      seen = given_back;
      index = FIND_END;
      number = BEGIN_OF(index);
      if
      :: number < COUNT -> pieces[index] = PIECE(number, number + 1, ME); taken = true
      :: number + 1 < COUNT -> pieces[index] = PIECE(number, number + 2, ME); taken = true
      :: number >= COUNT
      fi
    fi;
    number = 0
  } /* pool.map.taken */
}

inline run_piece() {
  number = BEGIN(pieces[index]);
  do
  :: number < END(pieces[index]) ->
    at[ME] = number;
#ifdef BROKEN_3 /* the next input is named before this one is recorded */
    at[ME] = number + 1;
#endif
    if
    :: atomic { assert(!is_over); recorded = recorded | BIT(number) }
    :: put_aside(number, ME)
    :: fail(number)
#ifdef LEAVE
    :: leaves > 0 -> leaves--; break
#endif
    fi;
    number++
  :: number >= END(pieces[index]) -> at[ME] = number; break
  od; /* pool.map.piece_run */
  left = number < END(pieces[index]);
  put_back(index, number);
#ifndef BROKEN_5 /* the map may be in no lane any more */
  if
  :: left -> changed++
  :: !left
  fi;
#endif
  atomic { index = 0; number = 0; left = false; taken = false };
  check_map()
}

inline run_item() {
  if
  :: atomic { assert(!is_over); recorded = recorded | BIT(index); item[index] = OVER }
  :: fail(index); item[index] = OVER
  fi;
#ifndef BROKEN_4 /* nobody looks after the last input that was put aside */
  check_map()
#endif
}

#define CLAIM(i) \
  item[i] == QUEUED -> line[ME] = i + 1; item[i] = RUNNING; item_worker[i] = ME; index = i

proctype Worker() {
  byte seen, index, number, slot;
  bool all, back, taken, left;
#ifdef LEAVE
  byte leaves = (_pid == 1);
#endif
end_start:
  {
end_alive:
    do
    :: atomic { head != tail && !is_over -> slot = head; line[ME] = MAP };
      at[ME] = NOWHERE;
      do
      :: take();
        if
        :: taken -> run_piece()
        :: !taken -> break
        fi
#ifdef LEAVE
      :: leaves == 0 && _pid == 1 -> line[ME] = 0; goto end_left /* its order is to leave */
#endif
      od;
      atomic { /* the slot makes room if nothing is left */
        if
        :: IS_TAKEN && head == slot -> head++
        :: else
        fi
      };
      atomic { line[ME] = 0; seen = 0; index = 0; slot = 0 }
    :: atomic {
        if
        :: CLAIM(0)
        :: CLAIM(1)
#if COUNT == 3
        :: CLAIM(2)
#endif
        fi
      };
      run_item();
      atomic { line[ME] = 0; index = 0 }
    od
  } unless {
    atomic {
      dying & BIT(ME) -> dying = dying & ~BIT(ME);
      dead = dead | BIT(ME);
      seen = 0; index = 0; number = 0; slot = 0; all = false; back = false; taken = false; left = false
    }
  };
end_dead:
  atomic { !(dead & BIT(ME)) -> goto end_start };
end_left:
  false
}

/* ---- the supervisor -------------------------------------------------------------------------- */

/* repair_items(): one of them */
inline repair_item(i) {
  atomic {
    if
    :: item[i] == RUNNING && item_worker[i] == number -> item[i] = AGAIN
    :: else
    fi;
    if
    :: item[i] == AGAIN && item_worker[i] == number -> listed = listed | BIT(i)
    :: else
    fi
  }
}

#define FIND(i) OWNER(pieces[i]) == number -> index = i; found = true

inline repair_map() {
#ifndef BROKEN_7 /* what was put aside stays so */
  repair_item(0);
  repair_item(1);
#if COUNT == 3
  repair_item(2);
#endif
#endif
  atomic {
    found = false;
    if
    :: FIND(0)
    :: FIND(1)
#if COUNT == 3
    :: FIND(2)
#endif
    :: else
    fi
  };
  if
  :: found ->
    place = at[number];
    if
    :: place < BEGIN(pieces[index]) || place > END(pieces[index]) -> place = BEGIN(pieces[index])
    :: place == END(pieces[index])
    :: place >= BEGIN(pieces[index]) && place < END(pieces[index]) -> /* blame_input() */
      if
#ifndef BROKEN_8 /* nobody looks whether it is noted */
      :: HAS_NOTED(place) -> place++
#endif
#ifdef BROKEN_8
      :: fail(place); place++
#else
      :: !HAS_NOTED(place) -> fail(place); place++
      :: !HAS_NOTED(place) -> put_aside(place, SUPERVISOR); place++
      :: !HAS_NOTED(place) /* not blamed */
#endif
      fi
    fi; /* pool.repair.piece */
    put_back(index, place)
  :: !found
  fi;
  check_map();
#ifndef BROKEN_9 /* what the dead gave back nobody was told of */
  given_back++;
  reoffer()
#endif
}

/* mpx_reoffer() */
inline reoffer() {
  atomic {
    if
    :: !is_over && IS_TAKEN -> tail++
    :: else
    fi
  }
}

/* repair_job() of an input that was put aside */
inline repair_input() {
  index = line[number] - 1;
  if
  :: item[index] == RUNNING && item_worker[index] == number ->
    if
#ifdef BROKEN_6 /* it failed already, and dies for nothing of its own */
    :: true ->
#else
    :: !(failed & BIT(index)) ->
#endif
      item[index] = AGAIN; listed = listed | BIT(index)
    :: !(failed & BIT(index)) -> fail(index); item[index] = OVER
    :: failed & BIT(index) -> item[index] = OVER
    fi
  :: item[index] == AGAIN && item_worker[index] == number -> listed = listed | BIT(index)
  :: else
  fi;
  check_map()
}

inline repair() {
  if
  :: line[number] == MAP && !is_over -> repair_map()
  :: line[number] != MAP && line[number] != 0 -> repair_input()
  :: else
  fi; /* pool.repair.done */
  line[number] = 0;
  atomic { index = 0; place = 0; found = false; back = false }
}

inline take_back(i) {
  atomic {
    if
    :: item[i] == RUNNING || item[i] == QUEUED -> item[i] = AGAIN; item_worker[i] = 0
    :: else
    fi;
    if
    :: item[i] == AGAIN -> listed = listed | BIT(i)
    :: else
    fi
  }
}

#define QUEUE(i) listed & BIT(i) -> listed = listed & ~BIT(i); item[i] = (item[i] == AGAIN -> QUEUED : item[i])

proctype Supervisor() {
  byte number, index, place, buried;
  bool succeeds, all, found, back;
end_start:
  {
    if
    :: succeeds ->
      atomic { dead == ALL_WORKERS -> number = 1 };
      repair();
      if
      :: ALL_WORKERS & BIT(2) -> number = 2; repair()
      :: else
      fi;
      listed = 0;
      take_back(0);
      take_back(1);
#if COUNT == 3
      take_back(2);
#endif
      check_map();
      atomic { number = 0; buried = ALL_WORKERS; changed++ }
    :: !succeeds
    fi;
end_alive:
    do
    :: atomic {
        dead & ~buried -> number = (dead & ~buried & BIT(1) -> 1 : 2); buried = buried | BIT(number)
      };
      repair();
      number = 0
    :: atomic { changed > 0 -> changed = 0 }; reoffer()
    :: atomic { QUEUE(0) }
    :: atomic { QUEUE(1) }
#if COUNT == 3
    :: atomic { QUEUE(2) }
#endif
    :: atomic { buried -> dead = dead & ~buried; buried = 0 }
    od
  } unless {
    atomic {
      dies -> dies = false; succeeds = true; number = 0; index = 0; place = 0; buried = 0; all = false;
      found = false; back = false
    }
  };
  goto end_start
}

proctype None() {
end_none:
  false
}

#define KILL(who)                                                                           \
  atomic {                                                                                  \
    kills > 0 && !is_over && (ALL_WORKERS & BIT(who)) && !IS_DEAD(who) ->                   \
    dying = dying | BIT(who);                                                               \
    orphans = orphans & ~BIT(who);                                                          \
    kills--                                                                                 \
  }
#define KILL_ORPHAN(who)                            \
  atomic {                                          \
    orphans & BIT(who) -> dying = dying | BIT(who); \
    orphans = orphans & ~BIT(who)                   \
  }

/* The host; and who kills whom and when it likes, or forbears; orphans it must. */
active proctype Fate() {
  byte kills = KILLS;
  atomic {
    run Worker();
    if
    :: ALL_WORKERS & BIT(2) -> run Worker()
    :: else -> run None()
    fi;
    run Supervisor()
  };
  do
  :: KILL(1)
#ifdef TWO_DEATHS /* else workers are alike, and all that the supervisor's death costs is found there */
  :: atomic {
      kills > 0 && !is_over -> dies = true;
      orphans = ALL_WORKERS & ~(dead | dying);
      kills--
    }
  :: KILL_ORPHAN(1)
#endif
  :: atomic { is_over && orphans == 0 -> break }
  od
}
