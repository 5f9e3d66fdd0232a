# inside.sh NAME: what try.sh runs in the bare system, whose /src is the repository and /try where the packages lie.
name=$1
cd /try
mkdir notebook
cp /src/bindings/notebook/inputs.txt notebook/

# The commands of a page: its n-th block of a language, for who is root and not asked.
block() { # FILE LANGUAGE N
  awk -v language="$2" -v n="$3" '
    /^```/ { inside = !inside && $0 == "```" language && ++count == n; found = found || inside; fence = !fence; next }
    inside { print }
    END { exit !found }' "/src/$1"
}
commands() {
  block "$1" sh "$2" | sed 's/sudo //g; s/apt-get install/apt-get -qq -y install/;
    s|/where/the/repository/is|/src|' >commands.sh
  cat commands.sh
  # In this shell: a block may enter a virtual environment.
  . ./commands.sh
}
# The first line of the notebook's X': standard input must have it.
notebook() {
  tee out.txt
  tr -s ' ' <out.txt | grep -q '0\.94744244[, ]*-0\.24348429[, ]*-0\.91310441[, ]*-0\.44522983'
}

apt-get -q update
case $name in
c)
  block README.md cpp 1 >example.cpp
  block docs/install.md c 1 >example.c
  block docs/install.md cmake 1 >CMakeLists.txt
  commands README.md 1
  ./example
  commands docs/install.md 3
  ./example_c
  commands docs/install.md 4
  build/example
  cc /src/examples/notebook.c $(pkg-config --cflags --libs attend) -lm -o book
  ./book | notebook
  test -s /usr/share/doc/libattend0/copyright
  ;;
mpi)
  cp /src/examples/mpi/prefill.c program.c
  # As root, and four ranks on whatever this machine has.
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
  commands docs/beyond-one-machine.md 2 | tee out.txt
  grep -q 'off by at most' out.txt
  ;;
source)
  block docs/install.md c 1 >example.c
  cd /src
  commands docs/install.md 2
  cd /try
  commands docs/install.md 3
  ./example_c
  cc /src/examples/notebook.c $(pkg-config --cflags --libs attend) -lm -o book
  ./book | notebook
  ;;
fortran)
  cp /src/bindings/fortran/*.[fF]90 /src/bindings/fortran/*.inc .
  cp /src/bindings/fortran/examples/notebook.f90 program.f90
  commands bindings/fortran/README.md 1
  ./a.out notebook/inputs.txt | notebook
  ;;
go)
  mkdir go
  cp -r /src/bindings/go/internal /src/bindings/go/examples/notebook/main.go go/
  mv ./*.deb go/
  cd go
  printf 'module try\n\ngo 1.19\n' >go.mod
  sed -i 's|attend.dev/attend/internal|try/internal|' main.go
  commands bindings/go/README.md 1
  go run . ../notebook/inputs.txt | notebook
  ;;
node)
  mkdir -p node/app node/test
  mv ./*.deb ./*.tgz node/
  cd node
  cp /src/bindings/node/test/common.mjs test/
  sed "s|'../index.mjs'|'attend'|" /src/bindings/node/examples/notebook.mjs >app/notebook.mjs
  commands bindings/node/README.md 1
  node app/notebook.mjs | notebook
  test -s node_modules/attend/LICENSE
  ;;
rust | rust-source)
  mkdir -p rust/app/src rust/app/tests
  cp /src/bindings/rust/attend/examples/notebook.rs rust/app/src/main.rs
  cp /src/bindings/rust/attend/tests/common.rs rust/app/tests/
  n=1
  [ "$name" = rust ] || n=2
  # The crates as they are packed.
  {
    printf '[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\n'
    block bindings/rust/README.md toml $n | sed 's|/where/the/repository/is/bindings/rust/attend|/try/attend-cpu-0.1.0|; s/#.*//'
    printf '[patch.crates-io]\nattend-sys = { path = "/try/attend-sys-0.1.0" }\n'
  } >rust/app/Cargo.toml
  commands bindings/rust/README.md $n
  cd rust/app
  cargo run -q --release --offline | notebook
  test -s /try/attend-sys-0.1.0/LICENSE
  ;;
wheel | python-source)
  n=1
  [ "$name" = wheel ] || n=2
  commands bindings/python/README.md $n
  python3 /src/bindings/python/examples/notebook.py | notebook
  find .venv -path '*attend_cpu-*/licenses/LICENSE' | grep .
  if [ "$name" = wheel ]; then
    find .venv -path '*attend_cpu-*/licenses/LICENSE.libgomp' | grep .
    test ! -e /usr/lib/*/libgomp.so.1
  fi
  ;;
drop)
  sed 's|<attend/attend.h>|"attend.h"|' /src/examples/notebook.c >program.c
  cp /src/examples/numpy_random.h .
  commands packaging/drop/README.md 1
  commands packaging/drop/README.md 2
  ./program | notebook
  ;;
*) echo "what is $name?" >&2 && exit 2 ;;
esac
