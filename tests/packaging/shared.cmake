# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
#
# cmake -DSOURCE=... -DBUILD=... -DPREFIX=... -DLIBDIR=... -DGENERATOR=... -DCOMPILER=... -DREADELF=... -DVERSION=...
#       -P shared.cmake
#
# Builds the core as shared libraries, installs them into a prefix that holds nothing older, and looks at what lies
# there: names, versions, and that the libraries find each other wherever the prefix is. -O1, and sources several at a time: for the compiler's time.

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT code EQUAL 0)
    message("${output}")
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "${command} ended with ${code}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

run(${CMAKE_COMMAND} -S ${SOURCE} -B ${BUILD} -G ${GENERATOR} -DCMAKE_CXX_COMPILER=${COMPILER}
    -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG" -DCMAKE_INSTALL_LIBDIR=${LIBDIR}
    -DBUILD_SHARED_LIBS=ON -DMAGPIE_BUILD_TESTS=OFF -DMAGPIE_BUILD_EXAMPLES=OFF -DMAGPIE_BUILD_BENCH=OFF
    -DMAGPIE_WITH_TBB=OFF -DMAGPIE_WITH_ABSEIL=OFF -DMAGPIE_PCH=ON -DMAGPIE_UNITY=ON -DMAGPIE_WERROR=ON)
run(${CMAKE_COMMAND} --build ${BUILD} --parallel 2)
file(REMOVE_RECURSE ${PREFIX})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${PREFIX})

string(REGEX REPLACE "\\.[0-9]+$" "" so_version ${VERSION})
foreach(name IN ITEMS executor combinators)
  set(library ${PREFIX}/${LIBDIR}/libmagpie_${name}.so)
  foreach(link IN ITEMS ${library} ${library}.${so_version})
    if(NOT IS_SYMLINK ${link})
      message(FATAL_ERROR "${link} is not installed, or is no link")
    endif()
    file(REAL_PATH ${link} file)
    if(NOT file STREQUAL "${library}.${VERSION}")
      message(FATAL_ERROR "${link} leads to ${file}, not to ${library}.${VERSION}")
    endif()
  endforeach()
  run(${READELF} -dW ${library})
  set(expected "SONAME\\)[^\n]*\\[libmagpie_${name}\\.so\\.${so_version}\\]")
  if(name STREQUAL combinators)
    list(APPEND expected "NEEDED\\)[^\n]*\\[libmagpie_executor\\.so\\.${so_version}\\]" "(RUNPATH|RPATH)\\)[^\n]*\\[\\$ORIGIN\\]")
  endif()
  foreach(line IN LISTS expected)
    if(NOT output MATCHES "${line}")
      message("${output}")
      message(FATAL_ERROR "${library}: nothing matches ${line}")
    endif()
  endforeach()
endforeach()
