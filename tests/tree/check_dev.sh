#!/bin/sh
# What ./dev says, and by which code it ends. Nothing is built or installed: the commands that
# would do it are replaced.
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

# As on a Debian without $MISSING, where sudo does nothing and cmake fails.
mkdir fake
fake() {
  printf '#!/bin/sh\n%s\n' "$2" >"fake/$1"
  chmod +x "fake/$1"
}
fake id 'echo 1000'
fake sudo 'exit 1'
fake cmake 'echo "cmake runs" >&2; exit 3'
# shellcheck disable=SC2016 # the script's own
fake dpkg-query 'shift 3
for package; do [ "$package" = "$MISSING" ] || printf "installed:%s " "$package"; done'

# check_missing PACKAGE ARGUMENT...: ./dev with these arguments asks for the package, and goes on
# without a word when it is there.
check_missing() {
  MISSING=$1
  shift
  check 1 err "dev: cannot install $MISSING" "$@"
}
old_path=$PATH PATH=$folder/fake:$PATH
export MISSING PATH
check_missing cmake build
check_missing cmake bench
check_missing musl-tools build musl
check_missing musl-tools test musl -R queue
check_missing clang build clang
check_missing clang build fuzz
check_missing libclang-rt-dev build fuzz
check_missing clang test
check_missing valgrind test all
check_missing clang-tidy tidy
MISSING=musl-tools
check 3 err 'cmake runs' build
check 3 err 'cmake runs' build clang
PATH=$old_path

# The help names every command.
commands=$(sed -n '/^case \$command in$/,/^esac$/s/^  \([a-z]*\)) .*\|^  \([a-z]*\))$/\1\2/p' "$dev")
[ -n "$commands" ] || { echo 'no commands found in ./dev'; failed=1; }
"$dev" help >help
for command in $commands; do
  grep -q "^  $command\( \|$\)" help || { echo "./dev help does not name $command"; failed=1; }
done
exit $failed
