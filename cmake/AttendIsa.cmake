# The instruction sets: the only file of the build with -m flags.
#
# A row is a name and the flags src/kernels/isa/<name>.cpp is compiled with. The order of the rows is the order of
# dispatch, best first; the last row runs everywhere. The baseline holds for all other code. Rows of -O2 are there for
# CPUs without a better one, and small (at -O3 twice as large). ATTEND_ISA_PARTS are rows of a few kernels, for CPUs with an
# instruction more than the row behind them needs, from which the others come (dispatch/registry.cpp).

set(ATTEND_ISA_PARTS "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$" AND CMAKE_SIZEOF_VOID_P EQUAL 8)
  set(ATTEND_BASELINE -march=x86-64)
  set(ATTEND_ISA_PARTS avx512bf16 avx512vnni)
  set(ATTEND_ISA_ROWS
    "avx512bf16 -O3 -mavx512bf16 -mavx512vnni -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mavx2 -mprefer-vector-width=512"
    "avx512vnni -O3 -mavx512vnni -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mavx2 -mprefer-vector-width=512"
    "avx512 -O3 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mavx2 -mprefer-vector-width=512"
    "avx2 -O3 -mavx2 -mfma -mf16c"
    "sse42 -O2 -msse4.2"
    "generic -O2")
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$" AND CMAKE_SIZEOF_VOID_P EQUAL 8)
  # Out of line, atomics bring a constructor of libgcc's, which looks at the CPU when the library is loaded.
  set(ATTEND_BASELINE -mno-outline-atomics)
  set(ATTEND_ISA_ROWS
    "neon -O3"
    "generic -O2")
else()
  set(ATTEND_BASELINE "")
  set(ATTEND_ISA_ROWS "generic -O2")
endif()

# For who compiles what he alone runs, as `pip install` of the sources does: of the rows that this machine's CPU has the
# best one, with the parts before it, and the last, which then is for other machines only and compiled for less, in 0.6 of
# the time. Where the best is avx2, less than half of the whole. Which rows it has the compiler says, by the macros of their flags.
option(ATTEND_NATIVE "Build the best kernels of this machine's CPU, and generic, alone" OFF)
set(rows "")
if(ATTEND_NATIVE AND NOT CMAKE_CROSSCOMPILING)
  execute_process(COMMAND ${CMAKE_CXX_COMPILER} -march=native -dM -E -x c++ /dev/null OUTPUT_VARIABLE macros)
  foreach(row IN LISTS ATTEND_ISA_ROWS)
    string(REGEX MATCHALL "-m[a-z0-9.]+( |$)" flags "${row}")
    set(has ON)
    foreach(flag IN LISTS flags)
      string(REGEX REPLACE "^-m| $" "" macro "${flag}")
      string(TOUPPER "__${macro}__" macro)
      string(REPLACE . _ macro ${macro})
      if(NOT macros MATCHES "define ${macro} ")
        set(has OFF)
      endif()
    endforeach()
    if(has)
      list(APPEND rows "${row}")
    endif()
  endforeach()
  list(POP_BACK rows last)
  set(best "")
  foreach(row IN LISTS rows)
    list(APPEND best "${row}")
    string(REGEX MATCH "^[a-z0-9]+" name "${row}")
    if(NOT name IN_LIST ATTEND_ISA_PARTS)
      break()
    endif()
  endforeach()
  string(REPLACE -O2 "-O1 -ftree-vectorize" last "${last}")
  set(ATTEND_ISA_ROWS ${best} ${last})
endif()

# For builds that are only tested (tests/mutations, sanitizers): a list of names, to build these rows alone, those of this
# architecture, and quickly, at -O1.
# `generic`, the last resort of dispatch, must be among them.
set(ATTEND_QUICK_ISAS "" CACHE STRING "Build these instruction sets alone, for tests, not for speed; empty = all")
if(ATTEND_QUICK_ISAS)
  list(JOIN ATTEND_QUICK_ISAS "|" quick)
  list(FILTER ATTEND_ISA_ROWS INCLUDE REGEX "^(${quick})( |$)")
endif()

# How kernels are compiled beside that. Optimised in every build type: at -O0 inline functions become symbols and the
# tile leaves the registers. Under a sanitizer the unrolled tiles would compile for half an hour; -O1 without
# use-after-scope still checks every access. No LTO and no unique symbols: nothing of a kernel's object may be merged
# with code that was compiled with other flags. (g++ 12 warns of _mm512_undefined_ps() and the like in its own header,
# and of the sign of constants that are the bounds of arrays in templates; clang looks at signs too, without false
# alarms.)
# Callers may have stacks of 64 KiB: no frame over 8 KiB, where the compiler is the one the kernels were written with.
set(ATTEND_KERNEL_OPTIONS $<$<CXX_COMPILER_ID:GNU>:-Wframe-larger-than=8192>)
if(ATTEND_QUICK_ISAS)
  set(ATTEND_KERNEL_OPTIONS -O1)
endif()
if(CMAKE_CXX_FLAGS MATCHES "-fsanitize")
  set(ATTEND_KERNEL_OPTIONS -O1 -g1)
endif()
if(CMAKE_CXX_FLAGS MATCHES "-fsanitize=[a-z,]*address")
  list(APPEND ATTEND_KERNEL_OPTIONS -fno-sanitize-address-use-after-scope)
endif()
# In line, clang's checks of every access and every pointer take many times as long to compile. Here calls check the
# accesses; of the pointers only the preset asan-gcc looks at everything.
if(CMAKE_CXX_FLAGS MATCHES "-fsanitize=[a-z,]*address" AND CMAKE_CXX_COMPILER_ID MATCHES Clang)
  list(APPEND ATTEND_KERNEL_OPTIONS -mllvm -asan-instrumentation-with-call-threshold=0
    -fno-sanitize=null,alignment,pointer-overflow,object-size)
endif()
list(APPEND ATTEND_KERNEL_OPTIONS -fno-lto -fno-math-errno -fno-rtti
  $<$<CXX_COMPILER_ID:GNU>:-fno-gnu-unique> $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized>
  $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized> $<$<CXX_COMPILER_ID:GNU>:-Wno-sign-conversion>)

# An object library attend_kernels_<name>_<unit> of each unit of a file of kernels (kernels/define_table.hpp), or one,
# attend_kernels_<name>, if `units` is empty. ATTEND_TABLES are what stands behind attend_kernels_, ATTEND_OBJECTS the objects.
set(ATTEND_UNITS attention_f32 attention_f64 products columns)  # who compiles longest first
function(attend_add_tables name file units)
  list(TRANSFORM units REPLACE "(.+)" "${name}_\\1" OUTPUT_VARIABLE tables)
  if(NOT units)
    set(tables ${name})
  endif()
  set(objects "")
  foreach(table IN LISTS tables)
    add_library(attend_kernels_${table} OBJECT ${file})
    target_include_directories(attend_kernels_${table} PRIVATE ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(attend_kernels_${table} PRIVATE attend_build $<TARGET_NAME_IF_EXISTS:xsimd>)
    target_compile_options(attend_kernels_${table} PRIVATE ${ARGN})
    if(units)
      string(REPLACE ${name}_ "" unit ${table})
      target_compile_definitions(attend_kernels_${table} PRIVATE ATTEND_UNIT=${unit})
    endif()
    list(APPEND objects $<TARGET_OBJECTS:attend_kernels_${table}>)
  endforeach()
  # Of the file, whose options come behind attend_build's.
  set_source_files_properties(${file} PROPERTIES COMPILE_OPTIONS "${ATTEND_KERNEL_OPTIONS}")
  set(ATTEND_TABLES ${tables} PARENT_SCOPE)
  set(ATTEND_OBJECTS ${objects} PARENT_SCOPE)
endfunction()

# The tables of each row. ATTEND_ISAS is the list of names, ATTEND_OBJECTS_<name> has the objects of each, and
# attend_isa_list.inc, which dispatch/registry.cpp includes, a line ATTEND_ISA(<table>) for each table.
function(attend_add_kernels)
  foreach(row IN LISTS ATTEND_ISA_ROWS)
    separate_arguments(flags UNIX_COMMAND "${row}")
    list(POP_FRONT flags name)
    list(APPEND names ${name})
    set(units ${ATTEND_UNITS})
    if(name IN_LIST ATTEND_ISA_PARTS)
      set(units "")
    endif()
    attend_add_tables(${name} kernels/isa/${name}.cpp "${units}" ${flags})
    foreach(table IN LISTS ATTEND_TABLES)
      set_target_properties(attend_kernels_${table} PROPERTIES ${ATTEND_LIBRARY_PROPERTIES})
      # Tuned for no CPU, g++ 12 keeps addresses in the vector registers that a tile leaves of 32, where they wait behind its
      # FMAs. As for this one (on a Zen 4; znver3's loses 3 %, icelake-server's is the same) attention takes 0.98 of the time,
      # products of 1 to 64 0.975; but masked softmax 1.05. avx2, with 16, is the same.
      if(table MATCHES "^avx512_(attention|products)")
        target_compile_options(attend_kernels_${table} PRIVATE -mtune=haswell)
      endif()
      string(APPEND lines "ATTEND_ISA(${table})\n")
    endforeach()
    set(ATTEND_OBJECTS_${name} ${ATTEND_OBJECTS} PARENT_SCOPE)
  endforeach()
  file(CONFIGURE OUTPUT attend_isa_list.inc CONTENT "${lines}")
  set(ATTEND_ISAS ${names} PARENT_SCOPE)
endfunction()
