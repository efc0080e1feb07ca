#!/bin/sh
# check.sh INCLUDE COMPILER [OPTION...]: compiles each header below INCLUDE/mproc alone, twice in one
# unit, to see its guard.
include=$1
shift
status=0
for header in "$include"/mproc/*.h; do
  name=mproc/${header##*/}
  printf '#include <%s>\n#include <%s>\nextern int not_empty;\n' "$name" "$name" |
    "$@" -fsyntax-only -I "$include" - || {
    echo "$header: does not compile alone with $*"
    status=1
  }
done
exit $status
