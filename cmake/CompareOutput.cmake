# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
#
# cmake -DPROGRAM=emulator|argument|program -DEXPECTED=... -DACTUAL=... -P CompareOutput.cmake
#
# Runs PROGRAM and fails unless it ends with 0 and its stdout is EXPECTED, byte for byte. ACTUAL keeps the output.

if(NOT EXISTS ${EXPECTED})
  message(FATAL_ERROR "No expected output: write it to ${EXPECTED}")
endif()
string(REPLACE "|" ";" PROGRAM "${PROGRAM}")  # an emulator is a list, mostly empty
execute_process(COMMAND ${PROGRAM} OUTPUT_FILE ${ACTUAL} RESULT_VARIABLE code)
if(NOT code EQUAL 0)
  file(READ ${ACTUAL} output)
  message("It printed:\n${output}")
  message(FATAL_ERROR "${PROGRAM} ended with ${code}")
endif()
execute_process(COMMAND ${CMAKE_COMMAND} -E compare_files ${EXPECTED} ${ACTUAL} RESULT_VARIABLE differs ERROR_QUIET)
if(differs)
  execute_process(COMMAND diff -u ${EXPECTED} ${ACTUAL} OUTPUT_VARIABLE diff)
  # Not in the error itself: CMake would wrap its lines.
  message("${diff}")
  message(FATAL_ERROR "The output is not what it must be (-: expected, +: printed)")
endif()
