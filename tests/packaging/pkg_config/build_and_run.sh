#!/bin/sh
# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
#
# build_and_run.sh PKG_CONFIG COMPILER LIBDIR OUTPUT_FOLDER VERSION: the consumers of what is installed there, built as a makefile would.
set -eu
pkg_config=$1 compiler=$2 libdir=$3 output=$4 version=$5
here=$(cd "$(dirname "$0")" && pwd)

PKG_CONFIG_PATH=$libdir/pkgconfig
LD_LIBRARY_PATH=$libdir # for a build with BUILD_SHARED_LIBS
export PKG_CONFIG_PATH LD_LIBRARY_PATH

test "$("$pkg_config" --modversion magpie)" = "$version"
mkdir -p "$output"
for package in magpie magpie-asio; do
  "$pkg_config" --exists "$package" || continue
  consumer=consumer${package#magpie} # consumer, consumer-asio
  source=$here/../$(printf %s "$consumer" | tr - _).cc
  # The flags are words on purpose: no quotes around them.
  # shellcheck disable=SC2046
  "$compiler" -std=c++20 -O1 $("$pkg_config" --cflags "$package") "$source" -o "$output/$consumer" \
    $("$pkg_config" --libs "$package")
  "$output/$consumer"
done
