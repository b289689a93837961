# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
#
# magpie_add_library(NAME BASE_DIR dir HEADERS ... SOURCES ... LINK ... EXPORT set)
#
# Makes target magpie_NAME, alias magpie::NAME: compiled when there are sources, else INTERFACE. HEADERS become its
# file set (include root BASE_DIR), those in detail/ a second one; they are installed, and are compiled alone when
# MAGPIE_VERIFY_HEADERS is on.

# Headers that stand for another library; they belong to a target of their own, never to the core.
set(MAGPIE_PEER_HEADERS tbb_executor.h status.h asio.h detail/asio_operation.h detail/asio_spawn.h mpi.h)

function(magpie_add_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "BASE_DIR;EXPORT" "HEADERS;SOURCES;LINK")
  set(target magpie_${name})
  if(arg_SOURCES)
    add_library(${target} ${arg_SOURCES})
    set(scope PUBLIC)
    set_target_properties(${target} PROPERTIES
      VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
    get_target_property(type ${target} TYPE)
    if(type STREQUAL "SHARED_LIBRARY")
      # Inline variables and function-local statics must be one per process, so they are exported too: the version
      # script, not -fvisibility, draws the line at namespace magpie.
      set(script ${PROJECT_SOURCE_DIR}/cmake/exports.map)
      target_link_options(${target} PRIVATE -Wl,--version-script=${script})
      set_target_properties(${target} PROPERTIES LINK_DEPENDS ${script})
      if(NOT DEFINED CMAKE_INSTALL_RPATH)
        # The libraries lie side by side and find each other there, wherever the prefix is.
        set_target_properties(${target} PROPERTIES INSTALL_RPATH "$ORIGIN")
      endif()
    else()
      set_target_properties(${target} PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
    endif()
  else()
    add_library(${target} INTERFACE)
    set(scope INTERFACE)
  endif()
  add_library(magpie::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  target_compile_features(${target} ${scope} cxx_std_20)
  target_link_libraries(${target} ${scope} ${arg_LINK})
  set(details ${arg_HEADERS})
  list(FILTER details INCLUDE REGEX "/detail/")
  list(FILTER arg_HEADERS EXCLUDE REGEX "/detail/")
  target_sources(${target} ${scope}
    FILE_SET HEADERS BASE_DIRS ${arg_BASE_DIR} FILES ${arg_HEADERS}
    FILE_SET detail TYPE HEADERS BASE_DIRS ${arg_BASE_DIR} FILES ${details})
  set_target_properties(${target} PROPERTIES
    VERIFY_INTERFACE_HEADER_SETS ${MAGPIE_VERIFY_HEADERS} INTERFACE_HEADER_SETS_TO_VERIFY HEADERS
    UNITY_BUILD ${MAGPIE_UNITY} UNITY_BUILD_BATCH_SIZE 8)
  set_property(GLOBAL APPEND PROPERTY MAGPIE_LIBRARIES ${target})
  install(TARGETS ${target} EXPORT ${arg_EXPORT} FILE_SET HEADERS FILE_SET detail
          ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endfunction()

# The headers of the core below `dir`, without those of the peers.
function(magpie_glob_core_headers out dir)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${dir}/magpie/*.h)
  foreach(peer IN LISTS MAGPIE_PEER_HEADERS)
    list(REMOVE_ITEM headers ${dir}/magpie/${peer})
  endforeach()
  set(${out} ${headers} PARENT_SCOPE)
endfunction()

# The headers in detail/, each alone, but after the standard ones that most of them include: to read those again takes
# four fifths of the time. That nothing standard is missing where a program includes them, the public headers show.
function(magpie_verify_details library)
  get_target_property(headers ${library} HEADER_SET_detail)
  get_target_property(base ${library} HEADER_DIRS_detail)
  if(NOT headers)
    return()
  endif()
  set(sources "")
  foreach(header IN LISTS headers)
    file(RELATIVE_PATH header ${base} ${header})
    set(source ${CMAKE_CURRENT_BINARY_DIR}/${library}_details/${header}.cc)
    file(CONFIGURE OUTPUT ${source} CONTENT "#include <${header}>\n")
    list(APPEND sources ${source})
  endforeach()
  add_library(${library}_details OBJECT EXCLUDE_FROM_ALL ${sources})
  target_link_libraries(${library}_details PRIVATE ${library})
  magpie_precompile(${library}_details <atomic> <chrono> <coroutine> <functional> <memory> <mutex> <string> <vector>)
  add_dependencies(magpie_headers ${library}_details)
endfunction()

# Puts the header checks into the default build: a header that reaches above its floor stops it.
function(magpie_verify_headers)
  if(NOT MAGPIE_VERIFY_HEADERS)
    return()
  endif()
  add_custom_target(magpie_headers ALL)
  get_property(libraries GLOBAL PROPERTY MAGPIE_LIBRARIES)
  foreach(library IN LISTS libraries)
    get_target_property(headers ${library} HEADER_SET)
    if(headers)
      add_dependencies(magpie_headers ${library}_verify_interface_header_sets)
    endif()
    magpie_verify_details(${library})
  endforeach()
endfunction()

function(magpie_precompile target)
  if(MAGPIE_PRECOMPILE)
    target_precompile_headers(${target} PRIVATE ${ARGN})
  endif()
endfunction()

# For objects that nothing links: clang++ stops when the source is read and understood, and writes that down.
function(magpie_without_machine_code target)
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    target_compile_options(${target} PRIVATE -emit-llvm "SHELL:-Xclang -disable-llvm-passes")
  endif()
endfunction()

include(GNUInstallDirs)
