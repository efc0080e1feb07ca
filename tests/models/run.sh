#!/bin/sh
# Has SPIN look through every schedule of a model. 0: no error; 1: an error was found, and its
# schedule is printed; 2: the tools failed, or did not come to the end: that is no answer.
# With --must-fail 0: an error was found; 1: none.
#
# Usage: run.sh [--must-fail] MODEL [DEFINE...]
set -u
must_fail= optimize=-O1
if [ "${1-}" = --must-fail ]; then
  must_fail=1 optimize=-O0
  shift
fi
[ $# -ge 1 ] || { echo 'run.sh: no model is named' >&2; exit 2; }
folder=$(cd "$(dirname "$0")" && pwd)
model=$1
shift
for define; do
  set -- "$@" "-D$define"
  shift
done

work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM # by itself a signal runs no trap for EXIT
cd "$work" && cp "$folder/$model.pml" . || exit 2

no_answer() {
  echo "run.sh: $1" >&2
  cat ./*.out >&2
  exit 2
}

# spin says some errors on standard output and ends by 0
if ! spin -a "$@" "$model.pml" >spin.out 2>&1 || [ ! -f pan.c ] || grep -qi 'error' spin.out; then
  no_answer 'spin cannot read the model'
fi
# Only assertions and invalid end states are asked for; 1 GiB bounds the states that are kept. An
# error that is there is found in less time than the compiler takes to make the search fast.
"${CC:-cc}" "$optimize" -w -DSAFETY -DNOCLAIM -DMEMLIM=1024 -DCOLLAPSE -o pan pan.c >cc.out 2>&1 ||
  no_answer 'pan.c cannot be compiled'
timeout 600 ./pan -n -m100000 >pan.out 2>&1
code=$?

# An error is believed when it is one that the models ask for, and "none" when nothing was left out.
if grep -q '^pan:1: \(assertion violated\|invalid end state\)' pan.out && [ -f "$model.pml.trail" ]
then
  grep '^pan:1' pan.out
  [ -z "$must_fail" ] || exit 0
  spin -t -p -g "$@" "$model.pml"
  exit 1
fi
if [ $code != 0 ] || ! grep -q 'errors: 0$' pan.out; then
  no_answer "pan ended by $code"
fi
left_out='Search not completed\|max search depth too small\|out of memory\|reached -DMEMLIM'
! grep -q "$left_out" pan.out || no_answer 'the search was not completed'
grep 'errors: 0$\|states, stored' pan.out
[ -z "$must_fail" ] || { echo 'run.sh: no error was found where there is one'; exit 1; }
