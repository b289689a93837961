# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
#
# Every option of the build, and the flags that follow from them.

option(MAGPIE_BUILD_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
option(MAGPIE_BUILD_EXAMPLES "Build the examples" ${PROJECT_IS_TOP_LEVEL})
option(MAGPIE_BUILD_BENCH "Build the benchmarks (needs Google Benchmark and oneTBB)" ${PROJECT_IS_TOP_LEVEL})
option(MAGPIE_TASKS_IN_REGISTERS "clang++ 19: tasks are passed in registers; for programs of which all is optimised" OFF)
option(MAGPIE_WERROR "Warnings are errors" OFF)
set(MAGPIE_SANITIZE "" CACHE STRING "Sanitizers for everything: 'address,undefined', 'thread', or empty")

find_package(TBB CONFIG QUIET)
find_package(absl CONFIG QUIET)
find_path(MAGPIE_ASIO_INCLUDE_DIR asio/bind_allocator.hpp)  # has it since 1.22
if(MAGPIE_ASIO_INCLUDE_DIR)
  set(asio_found ON)
else()
  set(asio_found OFF)
endif()
set(MPI_CXX_SKIP_MPICXX ON)  # its C functions alone
if(NOT DEFINED MAGPIE_WITH_MPI)
  find_package(MPI QUIET COMPONENTS CXX)
endif()
option(MAGPIE_WITH_TBB "Build magpie::tbb" ${TBB_FOUND})
option(MAGPIE_WITH_ABSEIL "Build magpie::status" ${absl_FOUND})
option(MAGPIE_WITH_ASIO "Build magpie::asio" ${asio_found})
option(MAGPIE_WITH_MPI "Build magpie::mpi" "${MPI_CXX_FOUND}")

# Relacy runs threads as fibers, which the sanitizers do not follow: the models are left out there.
if(MAGPIE_SANITIZE)
  set(models_by_default OFF)
else()
  set(models_by_default ON)
endif()
option(MAGPIE_BUILD_MODEL_TESTS "With the tests: build tests/model" ${models_by_default})
option(MAGPIE_BUILD_STRESS_TESTS "With the tests: build tests/stress" ON)
option(MAGPIE_OPTIMISE_TESTS "With the tests: unit tests and models with all optimisations, as users build" OFF)
option(MAGPIE_TEST_LINES "With a sanitizer: reports name the lines of tests and examples, not only those of the library" OFF)
option(MAGPIE_FULL_TESTS "Also the tests that leave themselves out of this compiler's or sanitizer's build" OFF)
option(MAGPIE_BUILD_FUZZERS "Build tests/fuzz (clang; the preset \"fuzz\")" OFF)
option(MAGPIE_PCH "With the tests: precompile the headers that nearly every source includes" ${MAGPIE_BUILD_TESTS})
# With clang only: g++ gains little by it, and so it is g++ that notices a missing #include.
set(MAGPIE_PRECOMPILE OFF)
if(MAGPIE_PCH AND CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  set(MAGPIE_PRECOMPILE ON)
endif()
option(MAGPIE_UNITY "Compile the library's sources several at a time" OFF)
option(MAGPIE_VERIFY_HEADERS "Compile every header alone against its own floor" ${MAGPIE_BUILD_TESTS})

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)

# A build type only where magpie is the project: a parent project chooses its own.
if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

add_compile_options(-Wall -Wextra -Wconversion -Wshadow)
if(MAGPIE_WERROR)
  add_compile_options(-Werror)
endif()

# For the folder that calls it. A fifth of the compiler's time with a sanitizer. Functions have their names all the same.
macro(magpie_without_lines)
  if(MAGPIE_SANITIZE AND NOT MAGPIE_TEST_LINES)
    add_compile_options(-g0)
  endif()
endmacro()

# For the folder that calls it. g++ 12's flow analysis gives false alarms within libstdc++'s own strings and stop tokens (GCC PR 105329,
# 105562, 105651) when programs are inlined deeply enough; the library itself builds with these warnings on.
macro(magpie_without_false_alarms)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    add_compile_options(-Wno-restrict -Wno-stringop-overflow -Wno-array-bounds -Wno-maybe-uninitialized)
  endif()
endmacro()

# Every test is a program that holds a whole runtime, and a sanitizer's besides: GNU ld takes up to 0.7 s for each, lld 0.2 s.
# gold is as good but for AddressSanitizer, of whose symbols it warns.
if(MAGPIE_BUILD_TESTS)
  include(CheckLinkerFlag)
  set(linkers gold)
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    set(linkers lld gold)
  endif()
  foreach(linker IN LISTS linkers)
    if(linker STREQUAL gold AND MAGPIE_SANITIZE MATCHES "address")
      continue()
    endif()
    check_linker_flag(CXX -fuse-ld=${linker} MAGPIE_HAVE_${linker})
    if(MAGPIE_HAVE_${linker})
      add_link_options(-fuse-ld=${linker})
      break()
    endif()
  endforeach()
endif()

if(MAGPIE_BUILD_FUZZERS)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
if(MAGPIE_SANITIZE)
  add_compile_options(-fsanitize=${MAGPIE_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${MAGPIE_SANITIZE})
  if(MAGPIE_SANITIZE MATCHES "undefined")
    # Without this UBSan prints and goes on, and the test passes.
    add_compile_options(-fno-sanitize-recover=all)
  endif()
endif()
