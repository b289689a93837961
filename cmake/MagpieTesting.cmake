# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
#
# What the tests are declared with:
#   magpie_add_gtest(file label)                              one executable, one ctest test
#   magpie_compile_fail(name file expected-message)           a program that must not compile, and says why
#   magpie_test_properties(name LABELS ... [TIMEOUT s])       labels, timeout and the sanitizers' settings

# halt_on_error=0: one run shows every race; the exit status is non-zero all the same.
# atexit_sleep_ms: with threads that outlive main(), such as oneTBB's, each program would wait a second there.
set(MAGPIE_TSAN_OPTIONS "halt_on_error=0:second_deadlock_stack=1:history_size=4:atexit_sleep_ms=100")
set(MAGPIE_ASAN_OPTIONS "detect_stack_use_after_return=1:check_initialization_order=1:strict_init_order=1")
set(MAGPIE_UBSAN_OPTIONS "print_stacktrace=1")
# Debian's llvm-19 has the symbolizer only under a name with its version; the suppressions need it, and the reader too.
find_program(MAGPIE_SYMBOLIZER NAMES llvm-symbolizer-19 llvm-symbolizer)
if(MAGPIE_SYMBOLIZER)
  foreach(options IN ITEMS MAGPIE_TSAN_OPTIONS MAGPIE_ASAN_OPTIONS MAGPIE_UBSAN_OPTIONS)
    string(APPEND ${options} ":external_symbolizer_path=${MAGPIE_SYMBOLIZER}")
  endforeach()
endif()
set(MAGPIE_TEST_ENVIRONMENT
  "ASAN_OPTIONS=${MAGPIE_ASAN_OPTIONS}"
  "UBSAN_OPTIONS=${MAGPIE_UBSAN_OPTIONS}"
  "TSAN_OPTIONS=${MAGPIE_TSAN_OPTIONS}")

function(magpie_test_properties name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "LABELS")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  if(CMAKE_CROSSCOMPILING)
    math(EXPR arg_TIMEOUT "10 * ${arg_TIMEOUT}")  # emulated
  endif()
  # The cost is the order: those that may take longest first, so that none of them runs alone at the end.
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT} COST ${arg_TIMEOUT}
                       ENVIRONMENT "${MAGPIE_TEST_ENVIRONMENT};MAGPIE_TEST_TIMEOUT=${arg_TIMEOUT}")
endfunction()

# For code that runs once, and of which there is much: most unit tests. -O1, with clang++
# without inlining what is not tiny, with g++ with tail calls and what of -O2 changes the meaning of code that is wrong: a third of
# either's time.
function(magpie_optimise_briefly target)
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    target_compile_options(${target} PRIVATE -O1 "SHELL:-mllvm -inline-threshold=5")
  elseif(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -O1 -foptimize-sibling-calls -fstrict-aliasing -fdevirtualize -ftree-vrp)
  endif()
endfunction()

# A test file may set its own ctest properties, each on a line of its own near the top:
#   // ctest-labels: slow          (added to the folder's label; several with ;)
#   // ctest-timeout: 600          (seconds, instead of 300)
#   // ctest-serial                (nothing else runs beside it)
#   // ctest-optimised-only        (says something about optimised code: left out of builds of type Debug)
#   // ctest-all-optimisations     (is about code as users build it: the build's own flags in optimised builds)
#   // ctest-sanitized-optimised   (runs for long: -O1 in a sanitizer's build)
#   // ctest-leave-out: tsan gcc (why)
#                                  (of asan, tsan and gcc those builds that would show nothing more of it; the reason is
#                                  demanded. With MAGPIE_FULL_TESTS it is built there, too)
set(MAGPIE_TEST_BUILD "")
if(MAGPIE_SANITIZE MATCHES "address")
  list(APPEND MAGPIE_TEST_BUILD asan)
elseif(MAGPIE_SANITIZE MATCHES "thread")
  list(APPEND MAGPIE_TEST_BUILD tsan)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  list(APPEND MAGPIE_TEST_BUILD gcc)
endif()

function(magpie_add_gtest source label)
  cmake_path(GET source STEM name)
  cmake_path(GET source PARENT_PATH folder)
  cmake_path(GET folder FILENAME folder)
  set(target ${folder}_${name})

  file(STRINGS ${source} directives REGEX "^// ctest-|^#include <magpie/(tbb_executor|status|asio|mpi)\\.h>")
  set(labels ${label})
  set(timeout 300)
  set(serial OFF)
  set(all_optimisations OFF)
  set(sanitized_optimised OFF)
  set(peers "")
  if(name MATCHES "^tbb_")
    list(APPEND peers tbb)
  endif()
  foreach(line IN LISTS directives)
    if(line MATCHES "^// ctest-labels: *(.+)$")
      list(APPEND labels ${CMAKE_MATCH_1})
    elseif(line MATCHES "^// ctest-timeout: *([0-9]+)$")
      set(timeout ${CMAKE_MATCH_1})
    elseif(line MATCHES "^// ctest-serial$")
      set(serial ON)
    elseif(line MATCHES "^// ctest-optimised-only$")
      if(CMAKE_BUILD_TYPE STREQUAL Debug)
        return()
      endif()
    elseif(line MATCHES "^// ctest-all-optimisations$")
      set(all_optimisations ON)
    elseif(line MATCHES "^// ctest-sanitized-optimised$")
      set(sanitized_optimised ON)
    elseif(line MATCHES "^// ctest-leave-out:(( (asan|tsan|gcc))+) \\(.+\\)$")
      string(REPLACE " " ";" left_out "${CMAKE_MATCH_1}")
      foreach(build IN LISTS MAGPIE_TEST_BUILD)
        if(build IN_LIST left_out AND NOT MAGPIE_FULL_TESTS)
          return()
        endif()
      endforeach()
    elseif(line MATCHES "tbb_executor")
      list(APPEND peers tbb)
    elseif(line MATCHES "status")
      list(APPEND peers status)
    elseif(line MATCHES "asio")
      list(APPEND peers asio)
    elseif(line MATCHES "mpi")
      list(APPEND peers mpi)
    else()
      message(FATAL_ERROR "${source}: not a directive: ${line}")
    endif()
  endforeach()
  foreach(peer IN LISTS peers)
    if(NOT TARGET magpie::${peer})
      message(STATUS "Left out, as magpie::${peer} is not built: ${target}")
      return()
    endif()
  endforeach()

  add_executable(${target} ${source})
  target_link_libraries(${target} PRIVATE magpie_test_support)
  foreach(peer IN LISTS peers)
    target_link_libraries(${target} PRIVATE magpie::${peer})
  endforeach()
  if(sanitized_optimised AND MAGPIE_SANITIZE)
    target_compile_options(${target} PRIVATE -O1)  # clang refuses headers that were precompiled with other optimisations
  elseif(MAGPIE_PCH)
    target_precompile_headers(${target} REUSE_FROM magpie_test_pch)
  endif()
  if(folder MATCHES "^(executor|combinators)$" AND NOT all_optimisations AND NOT MAGPIE_OPTIMISE_TESTS AND
     NOT CMAKE_BUILD_TYPE STREQUAL Debug)
    magpie_optimise_briefly(${target})
  endif()
  if(MAGPIE_SANITIZE MATCHES "undefined" AND folder STREQUAL "combinators")
    # A fifth of the compiler's time, for the largest sources. AddressSanitizer reports null pointers as well; the other
    # folders, which run every combinator, keep both checks.
    target_compile_options(${target} PRIVATE -fno-sanitize=null,alignment)
  endif()

  add_test(NAME ${target} COMMAND ${target})
  magpie_test_properties(${target} LABELS ${labels} TIMEOUT ${timeout})
  set_tests_properties(${target} PROPERTIES RUN_SERIAL ${serial})
  if("stress" IN_LIST labels OR sanitized_optimised)
    # Frames that millions of exceptions leave fill ASan's stand-in for the stack, which then is searched at every call.
    set_property(TEST ${target} APPEND PROPERTY ENVIRONMENT
      "ASAN_OPTIONS=${MAGPIE_ASAN_OPTIONS}:detect_stack_use_after_return=0")
  endif()
  if("tbb" IN_LIST peers)
    set_property(TEST ${target} APPEND PROPERTY ENVIRONMENT
      "TSAN_OPTIONS=${MAGPIE_TSAN_OPTIONS}:suppressions=${PROJECT_SOURCE_DIR}/cmake/tsan.supp")
  endif()
endfunction()

# The file must compile as it stands and must not with -DMAGPIE_COMPILE_FAIL, where the compiler has to print
# `message` (plain text, no pattern). So a program that is wrong for another reason is not taken for a success.
function(magpie_compile_fail name file message)
  cmake_path(ABSOLUTE_PATH file BASE_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR})
  set(includes "")
  foreach(dir IN ITEMS executor combinators tests)
    list(APPEND includes -I${PROJECT_SOURCE_DIR}/${dir})
  endforeach()
  # All of these programs include little else, and twice. g++ wants such a file beside the header.
  if(MAGPIE_PRECOMPILE)
    set(precompiled ${PROJECT_BINARY_DIR}/compile_fail.pch)
    if(NOT TEST compile_fail.headers)
      add_test(NAME compile_fail.headers COMMAND ${CMAKE_CXX_COMPILER} -std=c++20 ${includes} -x c++-header
                                                 ${PROJECT_SOURCE_DIR}/combinators/magpie/magpie.h -o ${precompiled})
      magpie_test_properties(compile_fail.headers LABELS unit compile_fail)
      set_tests_properties(compile_fail.headers PROPERTIES FIXTURES_SETUP compile_fail_headers)
    endif()
    list(APPEND includes -include-pch ${precompiled})
  endif()
  string(REPLACE ";" "|" includes "${includes}")
  add_test(NAME compile_fail.${name}
           COMMAND ${CMAKE_COMMAND} -DCOMPILER=${CMAKE_CXX_COMPILER} -DFLAGS=${includes} -DFILE=${file}
                   -DMESSAGE=${message} -P ${PROJECT_SOURCE_DIR}/cmake/CompileFail.cmake)
  magpie_test_properties(compile_fail.${name} LABELS unit compile_fail)
  if(MAGPIE_PRECOMPILE)
    set_tests_properties(compile_fail.${name} PROPERTIES FIXTURES_REQUIRED compile_fail_headers)
  endif()
endfunction()
