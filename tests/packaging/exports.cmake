# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
#
# cmake -DREADELF=... -DLIBRARIES=a;b -DMAP=exports.map -P exports.cmake: what the headers name in assembler has no
# mangled name, and a shared library that hides it cannot be linked against. So each visible symbol of the libraries
# that is not C++'s must be among those that the map has a shared library export.

file(READ ${MAP} map)
string(REGEX REPLACE "#[^\n]*" "" map "${map}")
string(REGEX MATCHALL "[A-Za-z_]+[*][A-Za-z0-9_*]*" patterns "${map}")
set(found FALSE)
foreach(library IN LISTS LIBRARIES)
  execute_process(COMMAND ${READELF} -sW ${library} OUTPUT_VARIABLE symbols RESULT_VARIABLE code ERROR_QUIET)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "${READELF} cannot read ${library}")
  endif()
  string(REGEX MATCHALL "(GLOBAL|WEAK|UNIQUE) +DEFAULT +[0-9]+ [^\n]+" symbols "${symbols}")
  foreach(line IN LISTS symbols)
    string(REGEX REPLACE ".* " "" symbol "${line}")
    if(symbol MATCHES "^_Z")
      continue()
    endif()
    set(found TRUE)
    set(exported FALSE)
    foreach(pattern IN LISTS patterns)
      string(REPLACE "*" ".*" expression "${pattern}")
      if(symbol MATCHES "^${expression}$")
        set(exported TRUE)
      endif()
    endforeach()
    if(NOT exported)
      message(FATAL_ERROR "${symbol} of ${library} matches no line of ${MAP} (${patterns})")
    endif()
  endforeach()
endforeach()
if(NOT found)
  message(FATAL_ERROR "no symbol was looked at: has the format of ${READELF} changed?")
endif()
