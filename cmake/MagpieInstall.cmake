# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
#
# Package files: find_package(magpie) and pkg-config. Libraries and headers are installed where they are declared.

include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/magpie)

install(EXPORT magpieTargets NAMESPACE magpie:: DESTINATION ${package_dir})
set(peers tbb status asio mpi)
set(peer_sets magpieTbbTargets magpieStatusTargets magpieAsioTargets magpieMpiTargets)
foreach(peer set IN ZIP_LISTS peers peer_sets)
  if(TARGET magpie::${peer})
    install(EXPORT ${set} NAMESPACE magpie:: DESTINATION ${package_dir})
  endif()
endforeach()

configure_package_config_file(cmake/magpieConfig.cmake.in ${PROJECT_BINARY_DIR}/magpieConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/magpieConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/magpieConfig.cmake ${PROJECT_BINARY_DIR}/magpieConfigVersion.cmake
        DESTINATION ${package_dir})

# -l flags of the compiled libraries among the arguments, in link order (users before what they use).
function(magpie_link_flags out)
  set(flags "")
  foreach(name IN LISTS ARGN)
    get_target_property(type magpie_${name} TYPE)
    if(NOT type STREQUAL "INTERFACE_LIBRARY")
      string(APPEND flags " -lmagpie_${name}")
    endif()
  endforeach()
  set(${out} "${flags}" PARENT_SCOPE)
endfunction()

# One .pc file: its name, what it requires, its libraries.
function(magpie_install_pc name description requires)
  magpie_link_flags(MAGPIE_PC_LIBS ${ARGN})
  set(MAGPIE_PC_NAME ${name})
  set(MAGPIE_PC_DESCRIPTION "${description}")
  set(MAGPIE_PC_REQUIRES "${requires}")
  configure_file(cmake/magpie.pc.in ${PROJECT_BINARY_DIR}/${name}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endfunction()

set(MAGPIE_PC_DEFINES "")
if(MAGPIE_TASKS_IN_REGISTERS)
  set(MAGPIE_PC_DEFINES " -DMAGPIE_TASKS_IN_REGISTERS")
endif()
# The prefix is found from where the .pc file lies, so that an installed tree can be moved.
file(RELATIVE_PATH MAGPIE_PC_TO_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
magpie_install_pc(magpie "${PROJECT_DESCRIPTION}" "" combinators executor)
if(TARGET magpie::tbb)
  magpie_install_pc(magpie-tbb "magpie's tasks on a oneTBB arena" "magpie = ${PROJECT_VERSION}, tbb" tbb)
endif()
if(TARGET magpie::status)
  magpie_install_pc(magpie-status "magpie's results as Abseil statuses"
                    "magpie = ${PROJECT_VERSION}, absl_status, absl_statusor" status)
endif()
if(TARGET magpie::asio)
  magpie_install_pc(magpie-asio "magpie's tasks and Asio's operations" "magpie = ${PROJECT_VERSION}" asio)
endif()
