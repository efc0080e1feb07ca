#!/bin/sh
# What a user gets: installs the build into a folder of its own and builds the README's first
# program against it by pkg-config and by CMake.
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
