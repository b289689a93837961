# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
#
# cmake -DBUILD=... -DPREFIX=... -P install.cmake: installs into a prefix that holds nothing older.

file(REMOVE_RECURSE ${PREFIX})
execute_process(COMMAND ${CMAKE_COMMAND} --install ${BUILD} --prefix ${PREFIX}
                RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(NOT code EQUAL 0)
  message(FATAL_ERROR "${output}")
endif()
