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
 *   JOIN        no deaths; somebody looks whether all is finished; with FOLLOW a consumer puts a
 *               message of its own, if there is a place, before it finishes the one it has
 *   HOLD        the queue grows; a consumer takes the next message before it finishes the last, and
 *               keeps one for ever; with CLOSE it is told the end instead
 *   WAKES       neither deaths nor looks: the wakes alone must do; with CLOSE or ROOM too
 *   ROOM        with WAKES: two producers wait, and nobody takes what they put
 *   BLOCKS      one death; who finishes a message spoils it first, as a block that is freed
 *   PASS        no deaths, or with DEATH one; messages for a place that is passed by, and comes
 *               back; with ABORT, CLOSE or WAKES too; with TWO producers, and who passes meets a claim
 *   KEEP        no deaths; a consumer keeps what it takes; with WAKES a producer passes its place,
 *               with CLOSE it has all there is, is told the end, and then finishes them
 *   BROKEN_n    what must be found
 *
 * Checked: a claim is never overwritten, and nobody is in a slot with another; producers claim in
 * the order of positions; no message is finished twice; none is taken while an earlier one of the
 * same producer lies there, but for what was given back; the end is told when nothing is to come;
 * who joins is told that all is finished only if at an instant of its look all was; and when the
 * system stands still and somebody waits, no slot is a dead one's, no producer waits beside a free
 * slot, no consumer beside a message or for an end that has come. */
#if defined(BROKEN_6) || defined(BROKEN_11)
#define ORDER
#elif defined(BROKEN_12)
#define HINTS
#elif defined(BROKEN_14)
#define JOIN
#elif defined(BROKEN_15)
#define ABORT
#elif defined(BROKEN_16)
#define BLOCKS
#elif defined(BROKEN_13) || defined(BROKEN_17)
#define HOLD
#elif defined(BROKEN_18)
#define CHAIN
#elif defined(BROKEN_22)
#define JOIN
#elif defined(BROKEN_21) || defined(BROKEN_25)
#define PASS
#elif defined(BROKEN_26)
#define KEEP
#define WAKES
#elif defined(BROKEN_27)
#define KEEP
#define CLOSE
#elif defined(BROKEN_28)
#define HINTS
#elif defined(BROKEN_29)
#define JOIN
#define FOLLOW
#elif defined(BROKEN_23)
#define PASS
#define ABORT
#elif defined(BROKEN_24)
#define HOLD
#define CLOSE
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
#elif defined(CHAIN) || (defined(PASS) && !defined(DEATH)) || defined(KEEP)
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
#elif defined(FOLLOW) /* two claim at once, while a third slot is in hand */
#define SLOTS 3
#else
#define SLOTS 2
#endif
/* Messages of a producer, at most, and a set of them. */
#if defined(HINTS)
#define EACH 7
#define SET short
#elif defined(LAG) || defined(PASS)
#define EACH 4
#define SET byte
#elif defined(FOLLOW) /* consumers are producers too */
#define EACH 3
#define SET short
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
#elif defined(KEEP) && defined(CLOSE)
#define PUTS_1 2
#define PUTS_2 1
#define GETS_3 FOR_EVER
#define GETS_4 0
#elif defined(KEEP)
#define PUTS_1 1
#define PUTS_2 2
#define GETS_3 1
#define GETS_4 1
#elif defined(HINTS) && (defined(TWO) || defined(BROKEN_28))
#define PUTS_1 7
#define PUTS_2 1
#define GETS_3 0
#define GETS_4 FOR_EVER
#elif defined(HINTS)
#define PUTS_1 7
#define PUTS_2 0
#define GETS_3 1
#define GETS_4 FOR_EVER
#elif defined(PASS) && (defined(DEATH) || defined(CLOSE))
#define PUTS_1 3
#define PUTS_2 0
#define GETS_3 1
#define GETS_4 FOR_EVER
#elif defined(PASS) && (defined(TWO) || defined(BROKEN_25))
#define PUTS_1 2
#define PUTS_2 2
#define GETS_3 0
#define GETS_4 FOR_EVER
#elif defined(PASS)
#define PUTS_1 4
#define PUTS_2 0
#define GETS_3 1
#define GETS_4 FOR_EVER
#elif defined(LAG)
#define PUTS_1 4
#define PUTS_2 1
#define GETS_3 1
#define GETS_4 1
#elif defined(FOLLOW)
#define PUTS_1 2
#define PUTS_2 0
#define GETS_3 2
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
#define GETS_3 2
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
/* The same slot a few laps later: its owner lets go of it, or others pass it by. */
#define LET_GO(word, phase, laps) ((phase) + ((LAP_OF(word) + (laps)) % LAPS) * 8)
#define IS_HELD(word) (PHASE(word) == CLAIMED || PHASE(word) == TAKEN)
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
mtype = { look, swap, record, help, raise, check, search, ask, heir, done, nothing, ended };
mtype = { stale, ahead, come, shift, mine };

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
#ifdef KEEP
bool told; /* the end */
#endif
byte dead; /* at once for all to see: who sees it later might as well look first */

/* What the code does not know. Messages are bits: BIT(1) is the first one of producer 1. */
byte next_claim[RINGS];
SET published, finished, given_back;
byte gone; /* who has ended by itself */
#ifdef BLOCKS
byte spoiled; /* slots */
#endif
#ifdef JOIN
bool was_drained = true; /* at some instant since the join began, all was finished */
#endif

#define IS_DEAD(who) ((who) != 0 && (dead & BIT(who)))
#define IS_OF_DEAD(word) \
  ((PHASE(word) == CLAIMED || PHASE(word) == TAKEN) && IS_DEAD(OWNER(word)))
#define MESSAGE ((ME - 1) * EACH + number)
#if RINGS * SLOTS == 2
#define ANY(what) (what(0) || what(1))
#elif RINGS * SLOTS == 3
#define ANY(what) (what(0) || what(1) || what(2))
#else
#define ANY(what) (what(0) || what(1) || what(2) || what(3))
#endif
/* What lies in slot `i` is older than what is taken, and of the same producer. */
#define TAKES messages[AT(position)]
#define IS_OVERTAKEN(i)                                                                 \
  (PHASE(words[i]) == FULL && messages[i] < TAKES &&                                    \
   (messages[i] - 1) / EACH == (TAKES - 1) / EACH && !(given_back & BIT(messages[i])))

/* Where the next claim is. */
#define PLACE ((RINGS - 1) * SLOTS + next_claim[RINGS - 1] % SLOTS)
#ifdef GROWS
#define IS_PLACE_FREE (words[PLACE] == WORD(FREE, next_claim[RINGS - 1], 0))
#else /* or one that comes after a place in somebody's hands */
#define IS_PLACE_FREE \
  (words[PLACE] == WORD(FREE, next_claim[0], 0) || \
   (IS_HELD(words[PLACE]) && words[(PLACE + 1) % SLOTS] == WORD(FREE, next_claim[0] + 1, 0)))
#endif

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

#ifdef BROKEN_28 /* whatever lap it seems to be of */
#define IS_HELD_OVER(word, position) (IS_HELD(word) && IS_BEHIND(word, position))
#else
#define IS_HELD_OVER(word, position) \
  (IS_HELD(word) && (LAP_OF(word) + 1) % LAPS == LAP_AT(position))
#endif

/* pass(): `seen` is what is to be passed by; uses `at`; then `step` is look, or nothing. What the
 * code remembers of after_held() is asked again. */
#define PASS_BY                                                                                  \
  atomic { step == ahead && !IS_HELD(seen) -> seen = 0; at = 0; step = nothing }                 \
  :: atomic { step == ahead && IS_HELD(seen) && at == position && !IS_HELD_OVER(seen, position) -> \
    position = tail[ring];                                                                       \
    seen = 0;                                                                                    \
    at = 0;                                                                                      \
    step = look                                                                                  \
  }                                                                                              \
  :: atomic { step == ahead && IS_HELD(seen) && (at > position || IS_HELD_OVER(seen, position)) -> \
    if                                                                                           \
    :: at == position + SLOTS -> step = nothing                                                  \
    :: at < position + SLOTS && IS_HELD_OVER(words[AT(at)], at) -> at++                          \
    :: at < position + SLOTS && !IS_HELD_OVER(words[AT(at)], at) ->                              \
      step = (at == position || IS_BEHIND(words[AT(at)], at) -> nothing : shift)                 \
    fi;                                                                                          \
    seen = (step == nothing -> 0 : seen);                                                        \
    at = (step == ahead -> at : 0)                                                               \
  }                                                                                              \
  :: atomic { step == shift ->                                                                   \
    if                                                                                           \
    :: words[AT(position)] == seen ->                                                            \
      assert(position == next_claim[ring]);                                                      \
      next_claim[ring]++;                                                                        \
      words[AT(position)] = WORD(PHASE(seen), position, OWNER(seen));                            \
      if /* a hint, and no step of its own */                                                    \
      :: floor[ring] < position - SLOTS + 1 -> floor[ring] = position - SLOTS + 1                \
      :: else                                                                                    \
      fi;                                                                                        \
      CHANGED                                                                                    \
    :: else                                                                                      \
    fi;                                                                                          \
    seen = 0;                                                                                    \
    step = look                                                                                  \
  } /* ring.passed */

#ifdef GROWS /* which is better than to pass */
#define IF_BEHIND step = nothing
#else
#define IF_BEHIND step = ahead
#endif

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
        IF_BEHIND
      :: else -> position++
      fi;
#ifdef GROWS
      seen = 0
    }
#else
      at = (step == ahead -> position : 0);
      seen = (step == ahead -> seen : 0)
    }
  :: PASS_BY
#endif
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
    assert(PHASE(words[AT(position)]) == CLAIMED && OWNER(words[AT(position)]) == ME);
#ifdef BROKEN_25 /* in the lap in which it was claimed */
    words[AT(position)] = WORD(FULL, position, 0);
#else
    words[AT(position)] = LET_GO(words[AT(position)], FULL, 0);
#endif
#ifdef KEEP
    assert(!told);
#endif
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

/* is_past_end() */
#ifdef BROKEN_14 /* or what is free by now */
#define IS_PAST_END(seen, position) (PHASE(seen) == FREE || PHASE(seen) == SEALED)
#else
#define IS_PAST_END(seen, position) \
  (seen == WORD(FREE, position, 0) || seen == WORD(SEALED, position, 0))
#endif

#ifdef BROKEN_22 /* what was passed by since the look began is not seen */
#define IS_SEEN(seen, position) (LAP_OF(seen) == LAP_AT(position))
#else
#define IS_SEEN(seen, position) true
#endif

/* mpx_ring_look(): whether a message, or `anything`, is in the ring; uses `at` and `bound`. */
inline ring_look(which, anything, if_none, if_any) {
  atomic { at = floor[which]; bound = at + SLOTS; step = look };
  do
  :: atomic { step == look ->
      if
      :: at == bound || IS_PAST_END(words[IN(which, at)], at) ->
        step = if_none; at = 0; bound = 0; break
      :: else ->
        if
        :: IS_SEEN(words[IN(which, at)], at) && PHASE(words[IN(which, at)]) != FREE &&
           PHASE(words[IN(which, at)]) != SEALED &&
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

#if defined(HOLD) || defined(KEEP)
#define COUNT_OWN(count) own = count
#define ALL_MINE (own == SLOTS -> mine : nothing)
#else /* nobody takes a second one */
#define COUNT_OWN(count) skip
#define ALL_MINE nothing
#endif

#ifdef ORDER
#define LIFT_FLOOR skip
#else
#ifdef BROKEN_15 /* over what the last lap left */
#define LAST_DONE position
#else
#define LAST_DONE (position - SLOTS)
#endif
#define LIFT_FLOOR if :: floor[ring] < LAST_DONE -> floor[ring] = LAST_DONE :: else fi
#endif

/* mpx_ring_take(); `step`: done, nothing, mine (all slots are), ended or stale. */
inline take() {
  atomic { position = floor[ring]; passed = NOBODY; in_flight = false; COUNT_OWN(0); step = look };
  do
  :: atomic { step == look -> /* find_message() */
      seen = words[AT(position)];
      if
      :: LAP_OF(seen) != LAP_AT(position) && IS_BEHIND(seen, position) -> step = ALL_MINE
      :: LAP_OF(seen) != LAP_AT(position) && !IS_BEHIND(seen, position) ->
        COUNT_OWN(0);
        step = check
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
          COUNT_OWN((seen == WORD(TAKEN, position, ME) -> own + 1 : 0));
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
  :: atomic { step == done -> LIFT_FLOOR; passed = 0; in_flight = false; break }
  :: atomic { step == ended ->
      assert(IS_DONE_WITH(words[ring * SLOTS]) && IS_DONE_WITH(words[ring * SLOTS + 1]));
      position = 0; passed = 0; in_flight = false; break
    }
#ifdef GROWS
  :: atomic { step == stale -> seen = 0; position = 0; passed = 0; in_flight = false; break }
#endif
  :: atomic { step == nothing || step == mine ->
      LIFT_FLOOR;
      position = 0; passed = 0; in_flight = false; COUNT_OWN(0); break
    }
  od
}

#define FINISHED(message)               \
  assert(!(finished & BIT(message)));   \
  finished = finished | BIT(message)

/* mpx_ring_finish(); `from`: the phase before. */
inline finish(from) { /* ring.read */
  atomic {
    assert(PHASE(words[AT(position)]) == from && OWNER(words[AT(position)]) == ME);
#if defined(BROKEN_5) /* free in the same lap */
    words[AT(position)] = WORD(FREE, position, 0);
#elif defined(BROKEN_21) /* free in the lap after that in which it was taken */
    words[AT(position)] = WORD(FREE, position + SLOTS, 0);
#else
    words[AT(position)] = LET_GO(words[AT(position)], FREE, 1);
#endif
    if
    :: from == TAKEN -> FINISHED(messages[AT(position)])
    :: else
    fi;
#ifdef JOIN
    was_drained = was_drained || published == finished;
#endif
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

#ifdef BROKEN_23 /* in the lap in which it was taken */
#define FULL_AGAIN WORD(FULL, position, 0)
#else
#define FULL_AGAIN LET_GO(words[AT(position)], FULL, 0)
#endif
#define GIVE_BACK                                                                     \
  assert(PHASE(words[AT(position)]) == TAKEN && OWNER(words[AT(position)]) == ME);    \
  words[AT(position)] = FULL_AGAIN;                                                   \
  given_back = given_back | BIT(messages[AT(position)]);                              \
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
#ifdef BROKEN_24 /* who has the next place waits for itself */
      :: PHASE(seen) != SEALED && IS_BEHIND(seen, position) -> step = nothing
#else
      :: PHASE(seen) != SEALED && IS_BEHIND(seen, position) -> step = ahead
#endif
      :: seen == WORD(FREE, position, 0) -> step = swap
      :: else -> position++
      fi;
      at = (step == ahead -> position : 0);
      seen = (step == ahead -> seen : 0)
    }
  :: PASS_BY
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
  atomic { position = floor[ring]; at = position + SLOTS; step = look };
  do
  :: atomic { step == look ->
      seen = words[AT(position)];
      if
      :: position == at || IS_PAST_END(seen, position) -> step = ended
      :: else ->
        if
        :: IS_OF_DEAD(seen) -> step = swap
        :: else -> seen = 0; position++
        fi
      fi
    }
  :: atomic { step == swap -> /* take_over() */
      if
      :: words[AT(position)] == seen ->
#if defined(BROKEN_8) /* the next one does not see that it is of a dead one */
        words[AT(position)] = LET_GO(seen, PHASE(seen), 0);
#elif !defined(BROKEN_3) /* nobody takes it over */
        words[AT(position)] = LET_GO(seen, PHASE(seen), 0) + ME * 64;
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
        words[AT(position)] = LET_GO(words[AT(position)], FREE, 1);
        messages[AT(position)] = 0
      :: else ->
        words[AT(position)] = LET_GO(words[AT(position)], FULL, 0);
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
#ifdef BROKEN_27 /* and does not look whether the end was told meanwhile */
      :: step == done -> break
#else
      :: step == done && !closed -> break
      :: step == done && closed -> queue_finish(CLAIMED); step = ended; break
#endif
      :: step == nothing ->
#ifdef GROWS
        if
        :: ring == 0 -> atomic { chained = true; CHANGED } /* grow(): queue.ring_made is before */
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
  fi;
#ifdef GROWS
  step = (step == mine -> (ring < LAST_RING || closed -> ended : nothing) : step)
#else
  step = (step == mine -> (closed -> ended : nothing) : step)
#endif
#else
  step = (step == mine -> nothing : step)
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

#ifdef FOLLOW
/* Puts a message, if there is a place, and has the old one at `position` again. */
inline follow() {
  atomic { passed = position; number++ };
  queue_claim();
  if
  :: step == done -> publish()
  :: step == nothing
  fi;
  atomic { position = passed; passed = 0; step = done }
}
#endif

#ifdef ROOM
/* mpx_ring_has_room(), and who waits for it too */
inline pass_on() {
  atomic { at = tail[ring]; bound = 2 * SLOTS + at; step = look };
  do
  :: atomic { step == look ->
      if
      :: words[AT(at)] == WORD(FREE, at, 0) -> step = done
      :: words[AT(at)] != WORD(FREE, at, 0) && IS_BEHIND(words[AT(at)], at) &&
         (!IS_HELD(words[AT(at)]) || at == bound) -> step = nothing
      :: else -> at++
      fi
    }
  :: step == done -> turn_next(NOT_FULL); step = nothing
  :: atomic { step == nothing -> at = 0; bound = 0; break }
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
#if KILLS > 0 || !defined(GROWS)
  byte at;
#endif
#ifdef ROOM
  byte bound;
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
#if defined(HOLD) || defined(KEEP)
  byte own;
#endif
#ifdef FOLLOW
  byte number;
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
#ifdef KEEP
      :: step == ended -> told = true;
        for (at : 0 .. SLOTS - 1) {
          atomic {
            if
            :: PHASE(words[at]) == TAKEN && OWNER(words[at]) == ME ->
              words[at] = LET_GO(words[at], FREE, 1); CHANGED
            :: else
            fi
          }
        };
        at = 0;
        break
      :: step == done && holds ->
#if defined(WAKES) && !defined(BROKEN_26) /* its place may be passed from now on */
        turn_next(NOT_FULL);
#endif
        step = 0
      :: step == done && !holds -> queue_finish(TAKEN)
#else
      :: step == ended -> break
#endif
#ifdef ABORT
      :: step == done && holds -> atomic { GIVE_BACK; holds = false }
#ifdef WAKES
        ;
        turn_next(NOT_EMPTY)
#endif
#endif
#ifdef FOLLOW
      :: step == done && holds -> follow(); queue_finish(TAKEN)
      :: step == done && !holds -> queue_finish(TAKEN)
#elif !defined(KEEP)
      :: step == done -> queue_finish(TAKEN)
#endif
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
/* is_drained() of mproc_queue_join(): a look counts if nothing was put meanwhile. */
proctype Joiner() {
  byte at, bound, claims;
  mtype step;
  atomic { was_drained = (published == finished); claims = tail[0] };
  do
  :: ring_look(0, true, nothing, done);
    atomic {
      if
      :: step == done -> break
#ifdef BROKEN_29 /* whatever was put behind the look */
      :: step == nothing -> assert(was_drained); break
#else
      :: step == nothing && tail[0] == claims -> assert(was_drained); break
      :: step == nothing && tail[0] != claims -> claims = tail[0]
#endif
      fi
    }
  od;
  atomic { was_drained = true; claims = 0; step = 0 }
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
  :: !closed -> atomic { closed = true; CHANGED } /* queue.closed */
  :: closed -> break
#else
  :: true -> break
#endif
  od;
#elif defined(CLOSE) || defined(CHAIN)
  atomic { closed = true; CHANGED }; /* queue.closed */
#ifdef WAKES
  turn_next_all(NOT_FULL);
  turn_next_all(NOT_EMPTY);
#endif
#endif
  timeout;
  atomic {
    if
    :: WAITS(1) || WAITS(2) ->
      assert(!IS_PLACE_FREE && PHASE(words[PLACE]) != FREE);
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
#if !defined(HOLD) && !defined(KEEP) /* who is inside does not wait: it is dead */
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
