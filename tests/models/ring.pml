/* The slots of src/ipc/ring.c, and the chain of rings of src/ipc/queue.c. Each `atomic` is one step
 * in shared memory, and what follows from it in registers. All rings have the same few slots; laps
 * are counted in a circle of eight, six in HINTS, and begin one before its end.
 *
 *   (nothing)   deaths, and looks that repair
 *   TWO_DEATHS  two of them: who repairs may die too
 *   LAP         a producer and a consumer, and a second lap; one death
 *   ABORT       no deaths; messages are given back, and a place is given up without a message
 *   ORDER       no deaths, and no hints, which change nothing but the time; four slots
 *   CLOSE       somebody closes the queue; one death
 *   CHAIN       the queue grows, and is closed; no deaths
 *   HINTS       no deaths; a circle of six laps, and messages for half of it; two consumers
 *   LAG         a producer dies in the second lap; only two messages are taken
 *   JOIN        no deaths; somebody looks whether all is finished
 *   HOLD        the queue grows; a consumer takes the next message before it finishes the last, and
 *               keeps one for ever; with CLOSE it is told the end instead, see the README
 *   WAKES       neither deaths nor looks: the wakes alone must do; with CLOSE or ROOM too
 *   ROOM        with WAKES: two producers wait, and nobody takes what they put
 *   BLOCKS      one death; who finishes a message spoils it first, as a block that is freed
 *   BROKEN_n    what must be found
 *
 * Checked: a claim is never overwritten, and nobody is in a slot with another; producers claim in
 * the order of positions; no message is finished twice; none is taken while an earlier one of the
 * same producer lies there, but for what was given back; the end is told when nothing is to come;
 * and when the system stands still and somebody waits, no slot is a dead one's, no producer waits
 * beside a free slot, no consumer beside a message or for an end that has come. */
#if defined(BROKEN_6) || defined(BROKEN_11)
#define ORDER
#elif defined(BROKEN_12)
#define HINTS
#elif defined(BROKEN_14)
#define JOIN
#elif defined(BROKEN_15)
#define LAG
#elif defined(BROKEN_16)
#define BLOCKS
#elif defined(BROKEN_13) || defined(BROKEN_17)
#define HOLD
#elif defined(BROKEN_18)
#define CHAIN
#elif defined(BROKEN_19)
#define WAKES
#define CLOSE
#elif defined(BROKEN_20)
#define WAKES
#define ROOM
#elif defined(BROKEN_4)
#define CLOSE
#elif defined(BROKEN_8)
#define TWO_DEATHS
#elif defined(BROKEN_7)
#define ABORT
#elif defined(BROKEN_2) || defined(BROKEN_5) || defined(BROKEN_10)
#define LAP
#endif

#if defined(ORDER) || defined(JOIN) || defined(ABORT) || defined(WAKES) || defined(HOLD) || \
    defined(HINTS)
#define KILLS 0
#elif defined(CHAIN)
#define KILLS 0
#elif defined(TWO_DEATHS)
#define KILLS 2
#else
#define KILLS 1
#endif

#if defined(CHAIN) || defined(HOLD)
#define GROWS
#define RINGS 2
#else
#define RINGS 1
#define ring 0
#endif
#if defined(GROWS) || defined(CLOSE)
#define ENDS
#endif

#ifdef ORDER
#define SLOTS 4
#else
#define SLOTS 2
#endif
/* Messages of a producer, at most, and a set of them. */
#if defined(HINTS)
#define EACH 7
#define SET short
#elif defined(LAG)
#define EACH 4
#define SET byte
#else
#define EACH 3
#define SET byte
#endif

/* How many messages the four put and get; the most that a search comes to the end of in time. */
#if defined(ORDER)
#define PUTS_1 2
#define PUTS_2 2
#define GETS_3 1
#define GETS_4 2
#elif defined(HINTS)
#define PUTS_1 7
#define PUTS_2 0
#define GETS_3 1
#define GETS_4 FOR_EVER
#elif defined(LAG)
#define PUTS_1 4
#define PUTS_2 1
#define GETS_3 1
#define GETS_4 1
#elif defined(JOIN)
#define PUTS_1 3
#define PUTS_2 0
#define GETS_3 1
#define GETS_4 1
#elif defined(HOLD) && defined(CLOSE)
#define PUTS_1 2
#define PUTS_2 0
#define GETS_3 FOR_EVER
#define GETS_4 1
#elif defined(HOLD)
#define PUTS_1 3
#define PUTS_2 0
#define GETS_3 3
#define GETS_4 FOR_EVER
#elif defined(ROOM)
#define PUTS_1 3
#define PUTS_2 1
#define GETS_3 1
#define GETS_4 1
#elif defined(TWO_DEATHS) || defined(BLOCKS) || (defined(WAKES) && defined(CLOSE))
#define PUTS_1 1
#define PUTS_2 0
#define GETS_3 FOR_EVER
#define GETS_4 FOR_EVER
#elif defined(BROKEN_3)
#define PUTS_1 3
#define PUTS_2 0
#define GETS_3 FOR_EVER
#define GETS_4 FOR_EVER
#elif defined(CLOSE) && KILLS > 0
#define PUTS_1 2
#define PUTS_2 0
#define GETS_3 FOR_EVER
#define GETS_4 0
#elif defined(LAP)
#define PUTS_1 3
#define PUTS_2 0
#define GETS_3 FOR_EVER
#define GETS_4 0
#elif defined(CHAIN)
#define PUTS_1 2
#define PUTS_2 1
#define GETS_3 FOR_EVER
#define GETS_4 0
#elif KILLS > 0
#define PUTS_1 1
#define PUTS_2 1
#define GETS_3 FOR_EVER
#define GETS_4 0
#else
#define PUTS_1 1
#define PUTS_2 1
#define GETS_3 FOR_EVER
#define GETS_4 FOR_EVER
#endif

#ifdef HINTS
#define LAPS 6
#else
#define LAPS 8
#endif
#define START ((LAPS - 1) * SLOTS)
#define LAP_AT(position) (((position) / SLOTS) % LAPS)
#define IN(which, position) ((which) * SLOTS + (position) % SLOTS)
#define AT(position) IN(ring, position)

/* A word: the phase, the lap, the owner. */
#define FREE 0
#define CLAIMED 1
#define FULL 2
#define TAKEN 3
#define SEALED 4
#define WORD(phase, position, owner) ((phase) + LAP_AT(position) * 8 + (owner) * 64)
#define PHASE(word) ((word) & 7)
#define LAP_OF(word) (((word) >> 3) & 7)
#define OWNER(word) ((word) >> 6)
#ifdef BROKEN_10 /* laps as numbers that never wrap */
#define IS_BEHIND(word, position) (LAP_OF(word) < LAP_AT(position))
#else
#define IS_BEHIND(word, position) ((LAPS + LAP_OF(word) - LAP_AT(position)) % LAPS >= LAPS / 2)
#endif

#define ME (_pid) /* Fate is 0, 1 and 2 produce, 3 and 4 consume */
#define BIT(number) (1 << (number))
#define NOBODY 255
#define FOR_EVER 255

/* Where one stands: each is a step. `done`, `nothing` and `ended` are results. */
mtype = { rise, look, swap, record, help, raise, check, search, ask, heir, done, nothing, ended };
mtype = { stale };

short words[RINGS * SLOTS];
byte messages[RINGS * SLOTS]; /* what lies in the slots */
byte tail[RINGS], floor[RINGS];
#ifdef ENDS
bool closed;
#endif
#ifdef GROWS
byte first, last; /* rings */
bool chained;     /* the first ring has a next one */
#define LAST_RING (chained -> 1 : 0)
#endif
byte dead; /* at once for all to see: who sees it later might as well look first */

/* What the code does not know. Messages are bits: BIT(1) is the first one of producer 1. */
byte next_claim[RINGS];
SET published, finished, given_back;
byte gone; /* who has ended by itself */
#ifdef BLOCKS
byte spoiled; /* slots */
#endif

#define IS_DEAD(who) ((who) != 0 && (dead & BIT(who)))
#define IS_OF_DEAD(word) \
  ((PHASE(word) == CLAIMED || PHASE(word) == TAKEN) && IS_DEAD(OWNER(word)))
#define MESSAGE ((ME - 1) * EACH + number)
#if RINGS * SLOTS == 2
#define ANY(what) (what(0) || what(1))
#else
#define ANY(what) (what(0) || what(1) || what(2) || what(3))
#endif
/* What lies in slot `i` is older than what is taken, and of the same producer. */
#define TAKES messages[AT(position)]
#define IS_OVERTAKEN(i)                                                                 \
  (PHASE(words[i]) == FULL && messages[i] < TAKES &&                                    \
   (messages[i] - 1) / EACH == (TAKES - 1) / EACH && !(given_back & BIT(messages[i])))

/* ---- waiting ------------------------------------------------------------------------------------
 * turn.pml shows that a turnstile loses nobody, so it is one step here: whoever saw no turn since
 * it prepared falls asleep. A look that would find the same is left out: with looks, one waits for
 * any change at all since the last look began. So the system stands still when none is left. */
#ifdef WAKES
byte prepared[2], asleep[2];
#define NOT_FULL 0
#define NOT_EMPTY 1
#define CHANGED skip
#define BEGIN_LOOK(turn) prepared[turn] = prepared[turn] | BIT(ME)
#define WAKE(turn, who) asleep[turn] & BIT(who) -> asleep[turn] = asleep[turn] & ~BIT(who)

inline turn_next(turn) {
  atomic {
    prepared[turn] = 0;
    if
    :: WAKE(turn, 1)
    :: WAKE(turn, 2)
    :: WAKE(turn, 3)
    :: WAKE(turn, 4)
    :: else
    fi
  }
}

inline turn_next_all(turn) {
  atomic { prepared[turn] = 0; asleep[turn] = 0 }
}

#else
byte news; /* bits of those for whom anything changed since they began to look */
#ifdef ORDER /* nobody waits */
#define CHANGED skip
#define BEGIN_LOOK(turn) skip
#else
#define CHANGED news = 255
#define BEGIN_LOOK(turn) news = news & ~BIT(ME)
#endif

#define IS_FULL(i) (PHASE(words[i]) == FULL || IS_OF_DEAD(words[i]))
#define IS_DEAD_ONES(i) IS_OF_DEAD(words[i])
#define PLACE ((RINGS - 1) * SLOTS + next_claim[RINGS - 1] % SLOTS)
#define IS_PLACE_FREE (words[PLACE] == WORD(FREE, next_claim[RINGS - 1], 0))
#if defined(GROWS)
#define HAS_PLACE (IS_PLACE_FREE || ANY(IS_DEAD_ONES) || closed)
#define HAS_MESSAGE (ANY(IS_FULL) || closed || chained)
#elif defined(CLOSE)
#define HAS_PLACE (IS_PLACE_FREE || ANY(IS_DEAD_ONES) || closed)
#define HAS_MESSAGE (ANY(IS_FULL) || closed)
#else
#define HAS_PLACE (IS_PLACE_FREE || ANY(IS_DEAD_ONES))
#define HAS_MESSAGE ANY(IS_FULL)
#endif
#endif

/* ---- producers --------------------------------------------------------------------------------*/

/* help(): a load, and a CAS */
#define LOAD_TAIL(then)                                          \
  atomic { step == help -> seen = tail[ring];                    \
    step = (seen < position + 1 -> raise : then);                \
    seen = (step == raise -> seen : 0)                           \
  }
#define STORE_TAIL(then)                                              \
  atomic { step == raise ->                                           \
    tail[ring] = (tail[ring] == seen -> position + 1 : tail[ring]);   \
    CHANGED;                                                          \
    seen = 0;                                                         \
    step = then                                                       \
  }

/* mpx_ring_claim(); `step`: done, nothing (there is no place) or ended. */
inline claim() {
  atomic { position = tail[ring]; step = look };
  do
  :: atomic { step == look ->
      seen = words[AT(position)];
      if
#ifdef BROKEN_9 /* the hint is there before the claim */
      :: seen == WORD(FREE, position, 0) -> step = help
#else
      :: seen == WORD(FREE, position, 0) -> step = swap
#endif
      :: seen != WORD(FREE, position, 0) && PHASE(seen) == SEALED -> step = ended
      :: seen != WORD(FREE, position, 0) && PHASE(seen) != SEALED && IS_BEHIND(seen, position) ->
        step = nothing
      :: else -> position++
      fi;
      seen = 0
    }
  :: atomic { step == swap ->
      if
      :: words[AT(position)] == WORD(FREE, position, 0) ->
        assert(position == next_claim[ring]);
        next_claim[ring]++;
#if defined(BROKEN_1) /* who it is becomes known later */
        words[AT(position)] = WORD(CLAIMED, position, 0);
        step = record;
#elif defined(BROKEN_9) || defined(ORDER)
        words[AT(position)] = WORD(CLAIMED, position, ME);
        step = done;
#else
        words[AT(position)] = WORD(CLAIMED, position, ME);
        step = help;
#endif
        CHANGED
      :: else -> step = look
      fi
    } /* ring.claimed */
#ifdef BROKEN_1
  :: atomic { step == record -> words[AT(position)] = WORD(CLAIMED, position, ME); step = help }
#endif
#ifdef BROKEN_9
  :: LOAD_TAIL(swap)
  :: STORE_TAIL(swap)
#else
  :: LOAD_TAIL(done)
  :: STORE_TAIL(done)
#endif
  :: atomic { step == done -> break }
  :: atomic { step == nothing || step == ended -> position = 0; break }
  od
}

/* mpx_ring_publish() */
inline publish() {
  atomic { /* ring.filled */
    messages[AT(position)] = MESSAGE; /* which nobody sees before */
    assert(words[AT(position)] == WORD(CLAIMED, position, ME));
    words[AT(position)] = WORD(FULL, position, 0);
#ifdef BLOCKS
    spoiled = spoiled & ~BIT(AT(position));
#endif
    published = published | BIT(MESSAGE);
    CHANGED
  } /* ring.published */
}

/* ---- consumers --------------------------------------------------------------------------------*/

/* raise_floor(): a load, and a CAS */
#ifdef ORDER
#define LOAD_FLOOR(then) atomic { step == check -> then }
#else
#define LOAD_FLOOR(then) atomic { step == check -> \
  if :: floor[ring] == position -> step = raise :: else -> then fi }
#endif
#if defined(BROKEN_2) || defined(BROKEN_12) /* a store instead of the CAS */
#define IS_FLOOR_AS_SEEN true
#else
#define IS_FLOOR_AS_SEEN (floor[ring] == position)
#endif
#define STORE_FLOOR(then) atomic { step == raise -> \
  if :: IS_FLOOR_AS_SEEN -> floor[ring] = position + 1; CHANGED :: else fi; then }

/* true_floor() goes on from `seen` */
#if defined(BROKEN_14) || defined(BROKEN_15) /* the floor, as it is */
#define IS_TRUE_FLOOR(seen, position) true
#else
#define IS_TRUE_FLOOR(seen, position) \
  (LAP_OF(seen) == LAP_AT(position) || IS_BEHIND(seen, position))
#endif

/* mpx_ring_look(): whether a message, or `anything`, is in the ring; uses `at` and `bound`. */
inline ring_look(which, anything, if_none, if_any) {
  atomic { at = floor[which]; step = rise };
  do
  :: atomic { step == rise ->
      if
      :: IS_TRUE_FLOOR(words[IN(which, at)], at) -> bound = at + SLOTS; step = look
      :: else -> at++
      fi
    }
  :: atomic { step == look ->
      if
      :: at == bound || words[IN(which, at)] == WORD(FREE, at, 0) ||
         PHASE(words[IN(which, at)]) == SEALED || IS_BEHIND(words[IN(which, at)], at) ->
        step = if_none; at = 0; bound = 0; break
      :: else ->
        if
        :: LAP_OF(words[IN(which, at)]) == LAP_AT(at) &&
           (anything || PHASE(words[IN(which, at)]) == FULL) ->
          step = if_any; at = 0; bound = 0; break
        :: else -> at++
        fi
      fi
    }
  od
}

#define IS_DONE_WITH(word) \
  (PHASE(word) == FREE || PHASE(word) == SEALED || (PHASE(word) == TAKEN && OWNER(word) == ME))

#if defined(GROWS) && !defined(BROKEN_18) /* from a later ring it is taken at once */
#define FOUND (ring == from -> swap : ask)
#else
#define FOUND swap
#endif

/* mpx_ring_take(); `step`: done, nothing, ended or stale. */
inline take() {
  atomic { position = floor[ring]; passed = NOBODY; in_flight = false; step = look };
  do
  :: atomic { step == look -> /* find_message() */
      seen = words[AT(position)];
      if
      :: LAP_OF(seen) != LAP_AT(position) && IS_BEHIND(seen, position) -> step = nothing
      :: LAP_OF(seen) != LAP_AT(position) && !IS_BEHIND(seen, position) -> step = check
      :: LAP_OF(seen) == LAP_AT(position) ->
        if
#ifdef BROKEN_6 /* what was published meanwhile is passed over */
        :: PHASE(seen) == FULL -> step = FOUND
#else
        :: PHASE(seen) == FULL -> step = (passed < position -> search : FOUND)
#endif
        :: PHASE(seen) == FREE -> step = nothing
#ifdef BROKEN_4 /* what others have in hand is forgotten */
        :: PHASE(seen) == SEALED -> step = ended
#else
        :: PHASE(seen) == SEALED -> step = (in_flight -> nothing : ended)
#endif
        :: else ->
          in_flight = in_flight || seen != WORD(TAKEN, position, ME);
          passed = (PHASE(seen) == CLAIMED && passed > position -> position : passed);
          position++
        fi
      fi;
      at = (step == search -> passed : 0);
      if
      :: step != search && step != ask && step != swap -> seen = 0
      :: else
      fi
    }
  :: LOAD_FLOOR(position++; step = look)
  :: STORE_FLOOR(position++; step = look)
  :: atomic { step == search -> /* find_published() */
      if
      :: at < position && words[AT(at)] != WORD(FULL, at, 0) -> at++
      :: at < position && words[AT(at)] == WORD(FULL, at, 0) ->
        position = at;
#ifdef BROKEN_11 /* and forgets the slots before it */
        passed = NOBODY;
#endif
        seen = 0;
        step = look;
        at = 0
      :: at == position -> at = 0; step = FOUND
      fi
    }
#ifdef GROWS
  :: step == ask -> ring_look(from, false, swap, stale) /* have_nothing() */
#endif
  :: atomic { step == swap ->
      if
#ifdef BROKEN_7 /* a store instead of the CAS */
      :: true ->
#else
      :: words[AT(position)] == seen ->
#endif
        words[AT(position)] = WORD(TAKEN, position, ME);
        assert(published & BIT(messages[AT(position)]));
#ifdef BLOCKS
        assert(!(spoiled & BIT(AT(position))));
#endif
        assert(!ANY(IS_OVERTAKEN));
        CHANGED;
        step = done
      :: else -> step = look
      fi;
      seen = 0
    } /* ring.taken */
  :: atomic { step == done -> passed = 0; in_flight = false; break }
  :: atomic { step == ended ->
      assert(IS_DONE_WITH(words[ring * SLOTS]) && IS_DONE_WITH(words[ring * SLOTS + 1]));
      position = 0; passed = 0; in_flight = false; break
    }
#ifdef GROWS
  :: atomic { step == stale -> seen = 0; position = 0; passed = 0; in_flight = false; break }
#endif
  :: atomic { step == nothing -> position = 0; passed = 0; in_flight = false; break }
  od
}

#define FINISHED(message)               \
  assert(!(finished & BIT(message)));   \
  finished = finished | BIT(message)

/* mpx_ring_finish(); `from`: the phase before. */
inline finish(from) { /* ring.read */
  atomic {
    assert(words[AT(position)] == WORD(from, position, ME));
#ifdef BROKEN_5 /* free in the same lap */
    words[AT(position)] = WORD(FREE, position, 0);
#else
    words[AT(position)] = WORD(FREE, position + SLOTS, 0);
#endif
    if
    :: from == TAKEN -> FINISHED(messages[AT(position)])
    :: else
    fi;
    messages[AT(position)] = 0;
    CHANGED;
#ifdef BROKEN_2 /* the floor is the last that was finished */
    step = raise
#else
    step = check
#endif
  }; /* ring.finished */
  do
  :: LOAD_FLOOR(step = done; break)
  :: STORE_FLOOR(step = done; break)
  od
}

#define GIVE_BACK                                         \
  assert(words[AT(position)] == WORD(TAKEN, position, ME)); \
  words[AT(position)] = WORD(FULL, position, 0);            \
  given_back = given_back | BIT(messages[AT(position)]);    \
  CHANGED

/* ---- the end, and the dead --------------------------------------------------------------------*/

/* mpx_ring_seal(); `step`: ended, or nothing (all are in use). */
inline seal() {
  atomic { position = tail[ring]; step = look };
  do
  :: atomic { step == look ->
      seen = words[AT(position)];
      if
      :: PHASE(seen) == SEALED -> step = ended
      :: PHASE(seen) != SEALED && IS_BEHIND(seen, position) -> step = nothing
      :: seen == WORD(FREE, position, 0) -> step = swap
      :: else -> position++
      fi;
      seen = 0
    }
  :: atomic { step == swap ->
      if
      :: words[AT(position)] == WORD(FREE, position, 0) ->
        assert(position == next_claim[ring]);
        words[AT(position)] = WORD(SEALED, position, 0);
        CHANGED;
        step = ended
      :: else -> step = look
      fi
    }
  :: atomic { step == ended || step == nothing -> position = 0; break }
  od
}

#if defined(BLOCKS) && !defined(BROKEN_16) /* nobody sees that it is spoiled */
#define IS_GONE ((spoiled >> AT(position)) & 1)
#else
#define IS_GONE false
#endif

/* mpx_ring_repair(); `at` is where it ends. */
inline repair() {
  atomic { position = floor[ring]; step = rise };
  do
  :: atomic { step == rise ->
      if
      :: IS_TRUE_FLOOR(words[AT(position)], position) -> at = position + SLOTS; step = look
      :: else -> position++
      fi
    }
  :: atomic { step == look ->
      seen = words[AT(position)];
      if
      :: position == at || seen == WORD(FREE, position, 0) || PHASE(seen) == SEALED ||
         IS_BEHIND(seen, position) ->
        step = ended
      :: else ->
        if
        :: LAP_OF(seen) == LAP_AT(position) && IS_OF_DEAD(seen) -> step = swap
        :: else -> seen = 0; position++
        fi
      fi
    }
  :: atomic { step == swap -> /* take_over() */
      if
      :: words[AT(position)] == seen ->
#if defined(BROKEN_8) /* the next one does not see that it is of a dead one */
        words[AT(position)] = WORD(PHASE(seen), position, 0);
#elif !defined(BROKEN_3) /* nobody takes it over */
        words[AT(position)] = WORD(PHASE(seen), position, ME);
#endif
        CHANGED;
        step = heir
      :: else -> seen = 0; position++; step = look
      fi
    } /* ring.taken_over */
#if defined(BROKEN_3) || defined(BROKEN_8) /* without the asserts of finish() and give_back() */
  :: atomic { step == heir ->
      if
      :: PHASE(seen) == CLAIMED ->
        words[AT(position)] = WORD(FREE, position + SLOTS, 0);
        messages[AT(position)] = 0
      :: else ->
        words[AT(position)] = WORD(FULL, position, 0);
        given_back = given_back | BIT(messages[AT(position)])
      fi;
      CHANGED;
      seen = 0;
      position++;
      step = look
    }
#else
  :: step == heir && PHASE(seen) == CLAIMED -> finish(CLAIMED);
    atomic { seen = 0; position++; step = look }
#ifdef BLOCKS
  :: step == heir && PHASE(seen) == TAKEN && IS_GONE -> finish(TAKEN);
    atomic { seen = 0; position++; step = look }
#endif
  :: atomic { step == heir && PHASE(seen) == TAKEN && !IS_GONE ->
      GIVE_BACK;
      seen = 0;
      position++;
      step = look
    }
#endif
  :: atomic { step == ended -> seen = 0; position = 0; at = 0; step = nothing; break }
  od
}

/* mpx_queue_repair(); who looks before anybody is dead finds nothing. */
inline queue_repair() {
#if KILLS > 0
  if
  :: dead ->
#ifdef GROWS
    ring = first;
    do
    :: repair();
      if
      :: ring < LAST_RING -> ring++
      :: else -> ring = 0; break
      fi
    od
#else
    repair()
#endif
  :: else
  fi
#else
  skip
#endif
}

/* mpx_queue_claim() */
inline queue_claim() {
#ifdef ENDS
  do
  ::
#ifdef GROWS
    ring = last;
    if
    :: ring < LAST_RING -> /* forward() */
      atomic {
        if
        :: last == ring -> last = ring + 1; CHANGED
        :: else
        fi
      };
      step = 0
    :: else -> step = look
    fi;
#else
    step = look;
#endif
    if
    :: step == look && closed -> step = ended; break
    :: step == look && !closed ->
      claim();
      if
      :: step == done -> break
      :: step == nothing ->
#ifdef GROWS
        if
        :: ring == 0 -> atomic { chained = true; CHANGED } /* grow() */
        :: else -> break
        fi
#else
        break
#endif
      :: step == ended
      fi
    :: else
    fi
  od
#else
  claim()
#endif
}

/* take_from(): what nothing more comes into is sealed. */
inline take_from() {
  take();
#ifdef ENDS
  if
#ifdef GROWS
  :: step == nothing && (ring < LAST_RING || closed) ->
#else
  :: step == nothing && closed ->
#endif
    seal();
    if
    :: step == ended -> take()
    :: else
    fi
  :: else
  fi
#endif
}

/* mpx_queue_take() */
inline queue_take() {
#ifdef GROWS
  atomic { from = first; ring = from; in_hand = false };
  do
  :: take_from();
    if
    :: step == done -> break
    :: step == stale -> atomic { ring = from; in_hand = false }
#ifdef BROKEN_13 /* what others have in hand delays all */
    :: step == nothing -> break
#endif
    :: atomic { (step == nothing || step == ended) && ring == LAST_RING ->
        step = (in_hand -> nothing : step); break
      }
    :: atomic { step == nothing && ring < LAST_RING -> in_hand = true; ring++ }
    :: atomic { step == ended && ring < LAST_RING && ring != from -> ring++ }
    :: step == ended && ring < LAST_RING && ring == from ->
#ifdef BROKEN_17 /* though the caller may have a message of it */
      step = nothing;
#else
      ring_look(ring, true, nothing, done);
#endif
      atomic { /* forward() */
        if
        :: step == nothing && first == ring -> first = ring + 1; CHANGED
        :: else
        fi;
        from = (step == nothing -> ring + 1 : from);
        ring++
      }
    fi
  od;
  atomic {
    if
    :: step == ended ->
      assert(closed);
      for (at : 0 .. (LAST_RING + 1) * SLOTS - 1) { assert(IS_DONE_WITH(words[at])) };
      at = 0
    :: else
    fi;
    from = 0;
    in_hand = false
  }
#else
  take_from()
#endif
}

inline queue_finish(from) {
#ifdef BLOCKS
  atomic { spoiled = spoiled | BIT(AT(position)); CHANGED }; /* queue.block_forgotten */
#endif
  finish(from)
#ifdef WAKES
  ;
  turn_next(NOT_FULL)
#if defined(CLOSE) && !defined(BROKEN_19) /* it may have been the last */
  ;
  if
  :: closed -> turn_next_all(NOT_EMPTY)
  :: else
  fi
#endif
#endif
}

#ifdef ROOM
/* mpx_ring_has_room(), and who waits for it too */
inline pass_on() {
  atomic { at = tail[ring]; step = look };
  do
  :: atomic { step == look ->
      if
      :: words[AT(at)] == WORD(FREE, at, 0) -> step = done
      :: words[AT(at)] != WORD(FREE, at, 0) && IS_BEHIND(words[AT(at)], at) -> step = nothing
      :: else -> at++
      fi
    }
  :: step == done -> turn_next(NOT_FULL); step = nothing
  :: atomic { step == nothing -> at = 0; break }
  od
}
#endif

/* Who dies forgets all at once: that saves states. */
#if KILLS > 0
byte burying;
#define IF_UNDISTURBED provided (burying == 0 || burying == _pid)
#else
#define IF_UNDISTURBED
#endif

/* ---- the processes ----------------------------------------------------------------------------*/

proctype Producer(byte count) IF_UNDISTURBED {
  byte position, number;
  short seen;
  mtype step;
#ifdef GROWS
  byte ring;
#endif
#if KILLS > 0 || defined(ROOM)
  byte at;
#endif
#ifdef ROOM
  bool has_waited;
#endif
  {
    do
    :: number < count ->
      atomic { number++; BEGIN_LOOK(NOT_FULL) };
      do
      :: queue_claim();
        if
        :: step == nothing ->
#ifdef WAKES
          asleep[NOT_FULL] = asleep[NOT_FULL] | (prepared[NOT_FULL] & BIT(ME));
end_asleep:
          atomic { !(asleep[NOT_FULL] & BIT(ME)) -> BEGIN_LOOK(NOT_FULL);
#ifdef ROOM
            has_waited = true
#endif
          }
#else
          queue_repair();
end_asleep:
          atomic { (news & BIT(ME)) && HAS_PLACE -> BEGIN_LOOK(NOT_FULL) }
#endif
        :: else -> break
        fi
      od;
      if
      :: step == ended -> break
#ifdef ABORT
      :: step == done -> queue_finish(CLAIMED); number = count /* as when memory is short */
#endif
      :: step == done -> publish()
      fi;
#if defined(ROOM) && !defined(BROKEN_20) /* one who finishes may make room for several */
      if
      :: has_waited -> has_waited = false; pass_on()
      :: else
      fi;
#endif
#ifdef WAKES
      turn_next(NOT_EMPTY);
#endif
      atomic { position = 0; step = 0 }
    :: else -> break
    od;
    atomic { gone = gone | BIT(ME); position = 0; number = 0; step = 0 }
  }
#if KILLS > 0
  unless {
    atomic { IS_DEAD(ME) -> burying = 0; position = 0; number = 0; seen = 0; at = 0; step = 0 }
  }
#endif
}

/* Takes `count` messages, or all for ever. */
proctype Consumer(byte count; bool holds) IF_UNDISTURBED {
  byte position, passed, at;
  short seen;
  bool in_flight;
  mtype step;
#ifdef GROWS
  byte ring, from, bound;
  bool in_hand; /* somebody else has a message of an earlier ring */
#endif
#ifdef HOLD
  byte held_ring, held;
#endif
  {
    do
    :: count > 0 ->
      BEGIN_LOOK(NOT_EMPTY);
      do
      :: queue_take();
        if
        :: step == nothing ->
#if defined(ORDER)
          step = ended;
          break
#elif defined(WAKES)
          asleep[NOT_EMPTY] = asleep[NOT_EMPTY] | (prepared[NOT_EMPTY] & BIT(ME));
end_asleep:
          atomic { !(asleep[NOT_EMPTY] & BIT(ME)) -> BEGIN_LOOK(NOT_EMPTY) }
#else
          queue_repair();
end_asleep:
          atomic { (news & BIT(ME)) && HAS_MESSAGE -> BEGIN_LOOK(NOT_EMPTY) }
#endif
        :: else -> break
        fi
      od;
#ifdef HOLD
      if
      :: !holds && step == ended -> break
      :: !holds && step == done -> finish(TAKEN)
      :: holds && held ->
        atomic { assert(held_ring >= first); at = ring; passed = position; ring = held_ring;
          position = held; held = 0; held_ring = 0 };
        finish(TAKEN);
        atomic { ring = at; position = passed; at = 0; passed = 0 };
        if
        :: step == ended -> break
        :: else -> held = position; held_ring = ring
        fi
      :: holds && !held && step == ended -> break
      :: holds && !held && step == done -> held = position; held_ring = ring
      fi;
#else
      if
      :: step == ended -> break
#ifdef ABORT
      :: step == done && holds -> atomic { GIVE_BACK; holds = false }
#ifdef WAKES
        ;
        turn_next(NOT_EMPTY)
#endif
#endif
      :: step == done -> queue_finish(TAKEN)
      fi;
#endif
      atomic { position = 0; step = 0; count = (count == FOR_EVER -> FOR_EVER : count - 1) }
    :: else -> break
    od;
    atomic { gone = gone | BIT(ME); position = 0; step = 0 }
  }
#if KILLS > 0
  unless {
    atomic {
      IS_DEAD(ME) -> burying = 0; position = 0; passed = 0; at = 0; seen = 0; in_flight = false;
      step = 0
    }
  }
#endif
}

#ifdef JOIN
/* mproc_queue_join(): what was published before must be finished when it finds nothing. */
proctype Joiner() {
  byte at, bound;
  SET before;
  mtype step;
  before = published;
  ring_look(0, true, nothing, done);
  assert(step == done || !(before & ~finished))
}
#endif

#define WAITS(who) (!((dead | gone) & BIT(who)))

#ifdef LAG
#define MAY_DIE (kills > 0 && next_claim[0] == START + PUTS_1)
#else
#define MAY_DIE (kills > 0)
#endif
#define KILL(who) \
  atomic { MAY_DIE && WAITS(who) -> dead = dead | BIT(who); burying = who; kills--; CHANGED }

/* Kills whom and when it likes, or forbears; and closes the queue. */
active proctype Fate() {
  byte kills = KILLS, i;
  atomic {
    for (i : 0 .. RINGS * SLOTS - 1) { words[i] = WORD(FREE, START, 0) };
    for (i : 0 .. RINGS - 1) { tail[i] = START; floor[i] = START; next_claim[i] = START };
    i = 0;
    run Producer(PUTS_1);
    run Producer(PUTS_2);
    run Consumer(GETS_3, true);
    run Consumer(GETS_4, false)
#ifdef JOIN
    ;
    run Joiner()
#endif
  };
#if KILLS > 0
  do
  :: KILL(1)
#ifndef LAG
  :: KILL(2)
  :: KILL(3)
  :: KILL(4)
#endif
#ifdef CLOSE
  :: !closed -> atomic { closed = true; CHANGED }
  :: closed -> break
#else
  :: true -> break
#endif
  od;
#elif defined(CLOSE) || defined(CHAIN)
  atomic { closed = true; CHANGED };
#ifdef WAKES
  turn_next_all(NOT_FULL);
  turn_next_all(NOT_EMPTY);
#endif
#endif
  timeout;
  atomic {
    if
    :: WAITS(1) || WAITS(2) ->
      i = (RINGS - 1) * SLOTS + next_claim[RINGS - 1] % SLOTS;
      assert(PHASE(words[i]) != FREE);
#ifdef ENDS
      assert(!closed)
#endif
    :: else
    fi;
    if
    :: WAITS(3) || WAITS(4) ->
      for (i : 0 .. RINGS * SLOTS - 1) { assert(PHASE(words[i]) != FULL) };
#ifdef ENDS
      assert(!closed)
#endif
    :: else
    fi;
#ifndef HOLD /* who is inside does not wait: it is dead */
    if
    :: WAITS(1) || WAITS(2) || WAITS(3) || WAITS(4) ->
      for (i : 0 .. RINGS * SLOTS - 1) {
        assert(PHASE(words[i]) != CLAIMED && PHASE(words[i]) != TAKEN)
      }
    :: else
    fi
#endif
  }
}
