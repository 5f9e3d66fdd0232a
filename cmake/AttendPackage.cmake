# The Debian packages, by `cpack -G DEB` in a build with -DATTEND_DEB=ON, which ./run package makes: libattend<major>
# and libattend-dev, and those of libattend_mpi. What they need is found by dpkg-shlibdeps.
option(ATTEND_DEB "Configure the Debian packages" OFF)
if(NOT ATTEND_DEB)
  return()
endif()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME attend)
set(CPACK_PACKAGE_VENDOR "the attend authors")
set(CPACK_PACKAGE_CONTACT "${ATTEND_MAINTAINER}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
  OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

set(about "attend computes attention, stable softmax and matrix products on CPUs, with
kernels for AVX-512, AVX2, SSE4.2 and NEON that are chosen when the program
runs, behind a small C interface.
")
set(components runtime development)
set(runtime libattend${PROJECT_VERSION_MAJOR})
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME ${runtime})
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_RUNTIME_DESCRIPTION "${about}\nThis package has the shared library.")
# For dpkg-shlibdeps of other packages, and ldconfig. (CPack's own way calls it in scripts.)
file(WRITE ${PROJECT_BINARY_DIR}/deb/shlibs
  "libattend ${PROJECT_VERSION_MAJOR} ${runtime} (>= ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})\n")
file(WRITE ${PROJECT_BINARY_DIR}/deb/triggers "activate-noawait ldconfig\n")
set(CPACK_DEBIAN_RUNTIME_PACKAGE_CONTROL_EXTRA ${PROJECT_BINARY_DIR}/deb/shlibs ${PROJECT_BINARY_DIR}/deb/triggers)

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libattend-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SHLIBDEPS OFF)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "${runtime} (= ${PROJECT_VERSION})")
set(CPACK_DEBIAN_DEVELOPMENT_DESCRIPTION "${about}
This package has the headers for C and C++, the static library, and what CMake
and pkg-config need.")

# Where there is an MPI: libattend-mpi<major> and libattend-mpi-dev. dpkg-shlibdeps knows no package of libattend yet.
if(ATTEND_MPI)
  list(APPEND components mpi mpi_development)
  set(mpi libattend-mpi${PROJECT_VERSION_MAJOR})
  set(CPACK_DEBIAN_MPI_PACKAGE_NAME ${mpi})
  set(CPACK_DEBIAN_MPI_PACKAGE_SECTION libs)
  set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR}/lib)
  set(CPACK_DEBIAN_MPI_PACKAGE_DEPENDS "${runtime} (= ${PROJECT_VERSION})")
  set(CPACK_DEBIAN_MPI_DESCRIPTION "${about}
This package has the shared library that spreads a sequence over the ranks of
MPI.")
  file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/deb/mpi)
  file(WRITE ${PROJECT_BINARY_DIR}/deb/mpi/shlibs
    "libattend_mpi ${PROJECT_VERSION_MAJOR} ${mpi} (>= ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})\n")
  set(CPACK_DEBIAN_MPI_PACKAGE_CONTROL_EXTRA ${PROJECT_BINARY_DIR}/deb/mpi/shlibs ${PROJECT_BINARY_DIR}/deb/triggers)

  set(CPACK_DEBIAN_MPI_DEVELOPMENT_PACKAGE_NAME libattend-mpi-dev)
  set(CPACK_DEBIAN_MPI_DEVELOPMENT_PACKAGE_SECTION libdevel)
  set(CPACK_DEBIAN_MPI_DEVELOPMENT_PACKAGE_SHLIBDEPS OFF)
  set(CPACK_DEBIAN_MPI_DEVELOPMENT_PACKAGE_DEPENDS
    "${mpi} (= ${PROJECT_VERSION}), libattend-dev (= ${PROJECT_VERSION}), libopenmpi-dev")
  set(CPACK_DEBIAN_MPI_DEVELOPMENT_DESCRIPTION "${about}
This package has the header of its library over the ranks of MPI, and what
CMake and pkg-config need.")
endif()
set(CPACK_COMPONENTS_ALL ${components})

# What Debian wants beside each: the licences in one file, and the changelog.
file(READ ${PROJECT_SOURCE_DIR}/LICENSE licence)
file(READ ${PROJECT_SOURCE_DIR}/packaging/LICENSE.xsimd xsimd)
file(WRITE ${PROJECT_BINARY_DIR}/deb/copyright "attend\n\n${licence}\n\n${xsimd}")
string(TIMESTAMP date "%a, %d %b %Y %H:%M:%S +0000" UTC) # SOURCE_DATE_EPOCH, if it is set
file(WRITE ${PROJECT_BINARY_DIR}/deb/changelog
  "attend (${PROJECT_VERSION}) unstable; urgency=medium\n\n  * See CHANGELOG.md of attend.\n\n"
  " -- ${ATTEND_MAINTAINER}  ${date}\n")
execute_process(COMMAND gzip -9nkf ${PROJECT_BINARY_DIR}/deb/changelog COMMAND_ERROR_IS_FATAL ANY)
foreach(component IN LISTS components)
  string(TOUPPER ${component} upper)
  install(FILES ${PROJECT_BINARY_DIR}/deb/copyright ${PROJECT_BINARY_DIR}/deb/changelog.gz
    DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/${CPACK_DEBIAN_${upper}_PACKAGE_NAME} COMPONENT ${component})
endforeach()

include(CPack)
