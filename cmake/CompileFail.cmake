# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
#
# cmake -DCOMPILER=... -DFLAGS=a|b -DFILE=... -DMESSAGE=... -P CompileFail.cmake     (see magpie_compile_fail)

string(REPLACE "|" ";" flags "${FLAGS}")
set(command ${COMPILER} -std=c++20 -fsyntax-only ${flags})

execute_process(COMMAND ${command} ${FILE} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(NOT code EQUAL 0)
  message("${output}")
  message(FATAL_ERROR "${FILE} must compile without MAGPIE_COMPILE_FAIL")
endif()

execute_process(COMMAND ${command} -DMAGPIE_COMPILE_FAIL ${FILE}
                RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(code EQUAL 0)
  message(FATAL_ERROR "${FILE} compiles with MAGPIE_COMPILE_FAIL; it must be refused with: ${MESSAGE}")
endif()
string(FIND "${output}" "${MESSAGE}" position)
if(position EQUAL -1)
  message("${output}")
  message(FATAL_ERROR "${FILE} is refused, but not with: ${MESSAGE}")
endif()
