# cmake --install: the headers, both libraries, the CMake package, attend.pc and the licences. The tree can be moved
# afterwards. Components: runtime (libattend.so.<major>, all that a linked program needs), licence,
# and development (the rest). With ATTEND_MPI also mpi (libattend_mpi.so.<major>) and mpi_development.
include(CMakePackageConfigHelpers)
set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME development)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/attend)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/attend DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN *.h PATTERN *.hpp PATTERN attend_mpi.h EXCLUDE)
install(TARGETS attend EXPORT attend
  LIBRARY COMPONENT runtime NAMELINK_COMPONENT development)
install(TARGETS attend_static EXPORT attend_static)
install(EXPORT attend NAMESPACE attend:: DESTINATION ${package_dir} FILE attendTargets.cmake)
install(EXPORT attend_static NAMESPACE attend:: DESTINATION ${package_dir} FILE attendStaticTargets.cmake)

# What a C linker has to add to libattend.a: what the C++ linker adds by itself, and the OpenMP runtime, which the CMake
# package looks for at its user's and attend.pc names as it was found here.
set(runtime ${CMAKE_CXX_IMPLICIT_LINK_LIBRARIES})
list(REMOVE_ITEM runtime ${CMAKE_C_IMPLICIT_LINK_LIBRARIES})
list(REMOVE_DUPLICATES runtime)
set(ATTEND_PRIVATE_LIBS "")
if(ATTEND_OPENMP)
  foreach(library IN LISTS OpenMP_CXX_LIB_NAMES)
    cmake_path(GET OpenMP_${library}_LIBRARY PARENT_PATH folder)
    if(folder IN_LIST CMAKE_CXX_IMPLICIT_LINK_DIRECTORIES)
      string(APPEND ATTEND_PRIVATE_LIBS "-l${library} ")
    else()
      string(APPEND ATTEND_PRIVATE_LIBS "${OpenMP_${library}_LIBRARY} ")
    endif()
  endforeach()
endif()
foreach(library IN LISTS runtime)
  string(APPEND ATTEND_PRIVATE_LIBS "-l${library} ")
  target_link_libraries(attend_static INTERFACE $<INSTALL_INTERFACE:$<LINK_ONLY:${library}>>)
endforeach()
string(STRIP "${ATTEND_PRIVATE_LIBS}" ATTEND_PRIVATE_LIBS)

# attend.pc finds its prefix from where it lies itself.
file(RELATIVE_PATH ATTEND_PC_UP ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" ATTEND_PC_UP ${ATTEND_PC_UP})
foreach(kind LIBDIR INCLUDEDIR)
  set(ATTEND_PC_${kind} "\${prefix}/${CMAKE_INSTALL_${kind}}")
  if(IS_ABSOLUTE "${CMAKE_INSTALL_${kind}}")
    set(ATTEND_PC_${kind} "${CMAKE_INSTALL_${kind}}")
  endif()
endforeach()

configure_file(${CMAKE_CURRENT_LIST_DIR}/attend.pc.in attend.pc @ONLY)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/attendConfig.cmake.in attendConfig.cmake
  INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO)
# Before 1.0.0 a new minor version may break its users.
write_basic_package_version_file(attendConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/attend.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/attendConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/attendConfigVersion.cmake
  DESTINATION ${package_dir})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT licence)
if(NOT ATTEND_ISA_ROWS MATCHES "^generic")
  install(FILES ${PROJECT_SOURCE_DIR}/packaging/LICENSE.xsimd DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT licence)
endif()

if(ATTEND_MPI)
  install(FILES ${PROJECT_SOURCE_DIR}/include/attend/attend_mpi.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/attend
    COMPONENT mpi_development)
  install(TARGETS attend_mpi EXPORT attend_mpi LIBRARY COMPONENT mpi NAMELINK_COMPONENT mpi_development)
  install(EXPORT attend_mpi NAMESPACE attend:: DESTINATION ${package_dir} FILE attendMpiTargets.cmake
    COMPONENT mpi_development)
  configure_file(${CMAKE_CURRENT_LIST_DIR}/attend_mpi.pc.in attend_mpi.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/attend_mpi.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
    COMPONENT mpi_development)
endif()
