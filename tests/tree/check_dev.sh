#!/bin/sh
# What ./dev says, and by which code it ends. Nothing is built or installed.
#
# Usage: check_dev.sh SOURCE
set -u
dev=$1/dev
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failed=0

# check CODE STREAM TEXT [ARGUMENT...]: the exit code, and a text on that stream; the other stays
# empty.
check() {
  code=$1 stream=$2 text=$3
  shift 3
  "$dev" "$@" >out 2>err </dev/null
  got=$?
  other=err
  [ "$stream" = out ] || other=out
  if [ "$got" != "$code" ] || ! grep -qF -- "$text" "$stream" || [ -s "$other" ]; then
    echo "./dev $*: exit code $got, $code is right; '$text' belongs to $stream; it wrote:"
    cat out err
    failed=1
  fi
}

check 0 out 'Usage: ./dev COMMAND'
for word in help -h --help; do
  check 0 out 'Usage: ./dev COMMAND' $word
done
check 2 err 'Usage: ./dev COMMAND' no-such-command
check 2 err 'Usage: ./dev COMMAND' --no-such-option
for command in format tidy; do
  check 1 err "dev: $command takes no arguments" $command extra
done

# The help names every command.
commands=$(sed -n '/^case \$command in$/,/^esac$/s/^  \([a-z]*\)) .*\|^  \([a-z]*\))$/\1\2/p' "$dev")
[ -n "$commands" ] || { echo 'no commands found in ./dev'; failed=1; }
"$dev" help >help
for command in $commands; do
  grep -q "^  $command\( \|$\)" help || { echo "./dev help does not name $command"; failed=1; }
done
exit $failed
