#!/bin/sh
# What a user gets: installs the build into a folder of its own, builds the README's first program
# against it by pkg-config and by CMake, and lets a plugin in a host that knows nothing of mproc
# spawn, which needs the helper program of the tree.
#
# Usage: check_install.sh BUILD SOURCE
set -eu
build=$1 source=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cmake --install "$build" --prefix "$folder/prefix" >/dev/null
cp "$source/examples/01_hello.c" "$folder/hello.c"
cd "$folder"
expected=$(printf 'hello, world\nthe child returned 7')

check() {
  for method in fork spawn; do
    output=$(MPROC_START_METHOD=$method "$@")
    [ "$output" = "$expected" ] || { echo "$* by $method printed: $output"; exit 1; }
  done
}

PKG_CONFIG_PATH=$(dirname "$(find prefix -name mproc.pc)")
export PKG_CONFIG_PATH
# shellcheck disable=SC2046
cc hello.c -o by_pkg_config $(pkg-config --cflags --libs mproc) \
  -Wl,-rpath,"$(pkg-config --variable=libdir mproc)"
check ./by_pkg_config

cat >CMakeLists.txt <<END
cmake_minimum_required(VERSION 3.21)
project(hello LANGUAGES C)
find_package(mproc REQUIRED)
add_executable(by_cmake hello.c)
target_link_libraries(by_cmake PRIVATE mproc::mproc)
add_executable(by_cmake_static hello.c)
target_link_libraries(by_cmake_static PRIVATE mproc::mproc_static)
END
cmake -S . -B build -DCMAKE_PREFIX_PATH="$folder/prefix" >/dev/null
cmake --build build >/dev/null
check build/by_cmake
check build/by_cmake_static

"$(find prefix -path '*/bin/mproc')" methods >/dev/null
for page in man1/mproc.1 man7/mproc.7 man3/mproc_process_start.3; do
  [ -e "prefix/share/man/$page" ] || { echo "man page $page is not installed"; exit 1; }
done

cat >plugin.c <<END
#include <mproc/mproc.h>
#include <stdio.h>
static int seven(void *arg, size_t size) { (void)arg, (void)size; return 7; }
int plugin_run(void);
int plugin_run(void) {
  int r = mproc_run(seven, NULL, 0);
  puts(r < 0 ? mproc_error_detail() : "helped");
  return r != 7;
}
END
cat >host.c <<END
int plugin_run(void);
int main(void) { return plugin_run(); }
END
# shellcheck disable=SC2046
cc -shared -fPIC plugin.c -o libplugin.so $(pkg-config --cflags --libs mproc)
cc host.c -o host -L. -lplugin -Wl,-rpath,"$folder",--allow-shlib-undefined
# Moved: no path that was compiled in leads there.
mv prefix moved
LD_LIBRARY_PATH=$(dirname "$(find "$folder/moved" -name libmproc.so)")
MPROC_START_METHOD=spawn
export LD_LIBRARY_PATH MPROC_START_METHOD
output=$(./host) || { echo "a plugin cannot spawn: $output"; exit 1; }
mv moved/libexec/mproc/mproc-helper elsewhere
# Another mproc of this machine may be at the path that was compiled in.
for other in $(LC_ALL=C grep -ao '/[a-zA-Z0-9_./-]*/mproc-helper' "$LD_LIBRARY_PATH/libmproc.so"); do
  [ ! -x "$other" ] || exit 0
done
if output=$(./host); then
  echo "a plugin spawns by another helper than the one of the installed tree"
  exit 1
fi
case $output in
  *'helper program was found neither beside libmproc'*) ;;
  *) echo "without a helper: $output"; exit 1 ;;
esac
