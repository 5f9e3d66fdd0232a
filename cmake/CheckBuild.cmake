# Tests of the build itself: cmake -DCHECK=<name> -D... -P CheckBuild.cmake. tests/CMakeLists.txt registers them.
#
# Why all this: an inline function that an AVX-512 file emits can replace the baseline's in the linker's eyes, a global
# with a constructor runs before the CPU was asked, and both crash only on somebody else's machine.
cmake_minimum_required(VERSION 3.25)
string(REPLACE "|" ";" OBJECTS "${OBJECTS}")  # what stands between them: semicolons would end the argument

# Every check says all it finds; each SEND_ERROR makes the script fail.
function(wrong text)
  message(SEND_ERROR "${text}")
endfunction()

function(run result)
  execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
  set(${result} "${output}" PARENT_SCOPE)
endfunction()

function(disassemble file result)
  run(output ${OBJDUMP} -d --no-show-raw-insn ${file})
  set(${result} "${output}" PARENT_SCOPE)
endfunction()

function(forbid_constructors file)
  run(sections ${READELF} -SW ${file})
  if(sections MATCHES "\\.((pre)?init_array|ctors)")
    wrong("${file} has a section .${CMAKE_MATCH_1}: something is constructed before main")
  endif()
endfunction()

# LIBRARY exports exactly the names in the file EXPECTED.
function(check_exports)
  run(output ${NM} -D --defined-only ${LIBRARY})
  string(REGEX MATCHALL "[0-9a-f]+ [B-Zi] [^\n@]+" lines "${output}")
  set(exported "")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE "^.* " "" name "${line}")
    list(APPEND exported ${name})
  endforeach()
  file(STRINGS ${EXPECTED} expected)
  foreach(name IN LISTS exported)
    if(NOT name IN_LIST expected)
      wrong("exported, but not in ${EXPECTED}: ${name}")
    endif()
  endforeach()
  foreach(name IN LISTS expected)
    if(NOT name IN_LIST exported)
      wrong("in ${EXPECTED}, but not exported: ${name}")
    endif()
  endforeach()
endfunction()

# The kernels' OBJECTS of instruction set ISA define its tables, and besides that only symbols that carry its
# name: what it calls can neither replace code of other files nor be replaced by it.
function(check_isa_symbols)
  set(namespace attend_xsimd_${ISA})
  string(LENGTH ${namespace} length)
  foreach(object IN LISTS OBJECTS)
    forbid_constructors(${object})
    run(output ${NM} -g --defined-only ${object})
    string(REGEX MATCHALL "[0-9a-f]+ [A-Za-z] [^\n]+" lines "${output}")
    if(NOT output MATCHES " attend_kernels_${ISA}(_[a-z0-9_]+)?\n")
      wrong("${object} does not define a table attend_kernels_${ISA}")
    endif()
    foreach(line IN LISTS lines)
      # DW.ref.__gxx_personality_v0 is a pointer, the same in every file.
      if(NOT line MATCHES " [DR] attend_kernels_${ISA}(_[a-z0-9_]+)?$"
         AND NOT line MATCHES " [VW] [^ ]*${length}${namespace}"
         AND NOT line MATCHES " V DW\\.ref\\.__gxx_personality_v0$")
        wrong("${object} defines a symbol that others could use or replace:${line}")
      endif()
    endforeach()
  endforeach()
endfunction()

# OBJECTS run on the oldest x86-64: no AVX register, no instruction with a VEX or EVEX prefix.
function(check_baseline)
  foreach(object IN LISTS OBJECTS)
    forbid_constructors(${object})
    disassemble(${object} code)
    set(vex "v[a-z0-9]+|andn|bextr|bls(i|r|msk)|bzhi|mulx|p(dep|ext)|rorx|s(ar|hl|hr)x|k[a-z]+[bwdq]")
    if(code MATCHES "(\t(${vex})[ \t\n]|%[yz]mm)[^\n]*")
      wrong("${object} needs more than the oldest x86-64:\n${CMAKE_MATCH_0}")
    endif()
  endforeach()
endfunction()

# The tiles of OBJECTS are made of fused multiply-adds F32 and F64 on whole REGISTERs.
function(check_fma)
  foreach(object IN LISTS OBJECTS)
    disassemble(${object} code)
    string(APPEND all "${code}")
  endforeach()
  foreach(fma ${F32} ${F64})
    string(REGEX MATCHALL "${fma}[^\n]*${REGISTER}" found "${all}")
    list(LENGTH found count)
    message(STATUS "${count} ${fma} ${REGISTER}")
    if(count LESS 100)
      wrong("only ${count} ${fma} ${REGISTER}")
    endif()
  endforeach()
endfunction()

# LIBRARY as it is loaded: what it needs, and what runs without being called. OPENMP: whether it must need the runtime.
function(check_shared)
  run(dynamic ${READELF} -dW ${LIBRARY})
  string(REGEX MATCHALL "\\(NEEDED\\)[^\n]*" needed "${dynamic}")
  foreach(line IN LISTS needed)
    if(NOT line MATCHES "lib(c|m|gcc_s|stdc\\+\\+|gomp|omp)\\.so|ld-linux")
      wrong("needs a library that nobody meant: ${line}")
    endif()
  endforeach()
  if(needed MATCHES "libg?omp\\.so")
    set(has_openmp ON)
  else()
    set(has_openmp OFF)
  endif()
  if(NOT has_openmp STREQUAL OPENMP)
    wrong("linked to OpenMP: ${has_openmp}, but ATTEND_OPENMP is ${OPENMP}")
  endif()
  if(NOT dynamic MATCHES "NODELETE")
    wrong("not linked with -z nodelete")
  endif()

  run(segments ${READELF} -lW ${LIBRARY})
  if(segments MATCHES "\n *TLS ")
    wrong("has thread-local storage")
  endif()

  # frame_dummy of the compiler's start-up code is the only initialiser, so there is one entry and it is relocated to
  # it.
  run(sections ${READELF} -SW ${LIBRARY})
  run(relocations ${READELF} -rW ${LIBRARY})
  run(symbols ${NM} ${LIBRARY})
  string(REGEX MATCHALL "init_array|ctors" arrays "${sections}")
  if(NOT arrays STREQUAL "init_array" OR NOT sections MATCHES " \\.init_array +INIT_ARRAY +0*([0-9a-f]+) +[0-9a-f]+ 0+8 ")
    wrong("runs more at start than frame_dummy: ${arrays}, or more than one entry")
  else()
    string(REGEX MATCH "\n0*${CMAKE_MATCH_1} +[0-9a-f]+ R_[A-Z0-9_]+RELATIVE +([0-9a-f]+)" entry "${relocations}")
    if(NOT symbols MATCHES "\n0*${CMAKE_MATCH_1} t frame_dummy\n")
      wrong("runs something else than frame_dummy at start: ${entry}")
    endif()
  endif()

  # crtfastmath.o, which -ffast-math links, makes the whole process flush denormals. Tasks take over their caller's
  # environment, and give the thread's own back.
  disassemble(${LIBRARY} code)
  string(REGEX REPLACE "<[A-Za-z0-9_]*Work3runEPvi>:\n([^\n]+\n)*" "" code "${code}")
  if(code MATCHES "(ldmxcsr|fldenv|fldcw|set_fast_math)[^\n]*")
    wrong("changes the floating-point environment: ${CMAKE_MATCH_0}")
  endif()

  run(imported ${NM} -D --undefined-only ${LIBRARY})
  if(imported MATCHES " (abort|_?exit|quick_exit|_Exit|v?f?printf|puts|perror|__assert_fail|_ZSt4cout|_ZSt4cerr)[@\n]")
    wrong("can end the process or print: imports ${CMAKE_MATCH_1}")
  endif()
endfunction()

# ---- the sources under ROOT ----

# Files of FOLDER include, of the project's own headers, only what matches ALLOWED.
function(layer folder allowed)
  file(GLOB_RECURSE files ${ROOT}/src/${folder}/*)
  foreach(file IN LISTS files)
    file(STRINGS ${file} includes REGEX "^ *# *include *\"")
    foreach(line IN LISTS includes)
      string(REGEX REPLACE "^[^\"]*\"([^\"]*)\".*" "\\1" header "${line}")
      if(NOT header MATCHES "^(${allowed})$")
        wrong("${file}: ${folder} may not include ${header}")
      endif()
    endforeach()
  endforeach()
endfunction()

# Only files whose path matches ALLOWED contain PATTERN, among the rest of the arguments (globs).
function(only_in allowed pattern)
  list(TRANSFORM ARGN PREPEND ${ROOT}/ OUTPUT_VARIABLE globs)
  file(GLOB_RECURSE files ${globs})
  foreach(file IN LISTS files)
    file(RELATIVE_PATH name ${ROOT} ${file})
    file(STRINGS ${file} found REGEX "${pattern}")
    if(found AND NOT name MATCHES "^(${allowed})$")
      wrong("${name} may not contain this: ${found}")
    endif()
  endforeach()
endfunction()

# attend.h <- api -> drivers -> kernels/table.hpp <- dispatch, which finds the caches when it chooses the kernels.
function(check_layers)
  layer(kernels "kernels/.*")
  layer(dispatch "dispatch/.*|drivers/cache\\.hpp|kernels/table\\.hpp|kernels/kernels\\.def|attend_isa_list\\.inc")
  layer(drivers "drivers/.*|kernels/table\\.hpp|attend/attend\\.h")
  layer(api "api/.*|drivers/.*|dispatch/.*|attend/attend\\.h")
  layer(reference "(reference/)?[a-z_]+\\.hpp")
  # A client of the library; the numbers of arguments are a part of statuses, those of the contract and of types promised.
  layer(mpi "mpi/.*|api/argument\\.hpp|kernels/table\\.hpp|attend/attend(_mpi)?\\.h")

  only_in("src/drivers/parallel\\.cpp" "# *pragma +omp|_Pragma *\\( *\"omp" src/*)
  only_in("src/kernels/(simd[a-z0-9_]*\\.hpp|isa/.*)" "# *include *<(xsimd/|[a-z]+intrin\\.h|arm_)" src/*)
  # At -O3 most of xsimd is inlined, so a missing renaming would show in the symbols only some day.
  file(GLOB backends ${ROOT}/src/kernels/simd_*.hpp)
  foreach(file IN LISTS backends)
    cmake_path(GET file STEM isa)
    string(REPLACE "simd_" "" isa ${isa})
    file(STRINGS ${file} lines REGEX "^#(include <xsimd/|define xsimd attend_xsimd_${isa}$)")
    if(lines MATCHES "include" AND NOT lines MATCHES "^#define xsimd [a-z0-9_]+;#include")
      wrong("${file} must say #define xsimd attend_xsimd_${isa} before it includes xsimd")
    endif()
  endforeach()
  only_in("" "pragma +(GCC|clang) +(push_options|target|attribute)|__attribute__ *\\(\\( *target" src/*)
endfunction()

# cmake/AttendIsa.cmake is the only file of the build with flags for an instruction set.
function(check_flags)
  set(flag "(^|[^A-Za-z0-9_-])-m(arch|cpu|tune|avx|s?sse|fma|bmi|popcnt|f16c|prefer|abi|fpu|no-)")
  file(GLOB build_files RELATIVE ${ROOT} ${ROOT}/CMakeLists.txt ${ROOT}/CMakePresets.json ${ROOT}/run ${ROOT}/.ci/*
    ${ROOT}/*/CMakeLists.txt ${ROOT}/cmake/*)
  list(REMOVE_ITEM build_files cmake/AttendIsa.cmake)
  foreach(file IN LISTS build_files)
    file(STRINGS ${ROOT}/${file} found REGEX "${flag}")
    # A peer that is compiled, not opened, is compiled as its users do.
    list(FILTER found EXCLUDE REGEX "eigen\\.cpp")
    if(found)
      wrong("${file} has instruction-set flags; they belong into cmake/AttendIsa.cmake: ${found}")
    endif()
  endforeach()
endfunction()

cmake_language(CALL check_${CHECK})
