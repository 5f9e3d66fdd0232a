"""The newest versions of other libraries, for ./run bench --peers: a virtual environment and llama.cpp's ggml, below
build/peers. Delete that folder, or a part's stamp in it, to bring newer ones.

    python3 bench/report/peer_environment.py build/peers [--yes] [name...]
"""

import argparse
import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import time
import typing
import zipfile


@dataclasses.dataclass
class Part:
    """One peer, and what it costs: megabytes to download and on disk, minutes on two cores."""

    name: str
    download: int
    disk: int
    minutes: int
    what: str
    install: typing.Callable  # of a Builder


class Builder:
    def __init__(self, folder):
        self.folder = folder
        self.python = folder / "bin" / "python"

    def run(self, *command, cwd=None):
        """Quietly, but for how long it has taken and how large the folder has become; its output if it fails."""
        with open(self.folder / "log.txt", "a") as log:
            log.write(f"$ {' '.join(map(str, command))}\n")
            log.flush()
            position = log.tell()
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=cwd)
            begin = told = time.monotonic()
            while process.poll() is None:
                time.sleep(0.2)
                if time.monotonic() - told > 10:
                    told = time.monotonic()
                    # A compiler's own count where there is one.
                    last = (self.folder / "log.txt").read_text().rstrip().rpartition("\n")[2].partition("]")
                    step = f", {last[0][1:]} files compiled" if last[1] and last[0].startswith("[") else ""
                    print(f"      {told - begin:.0f} s, {megabytes(self.folder)} MB below {self.folder}{step}", flush=True)
        if process.returncode != 0:
            end = (self.folder / "log.txt").read_text()[position:].strip().splitlines()[-3:]
            raise RuntimeError(" / ".join(end) or f"{command[0]} ended with {process.returncode}")

    def pip(self, *arguments):
        self.run(self.python, "-m", "pip", "--disable-pip-version-check", "-q", *arguments)


def megabytes(folder):
    return sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink()) >> 20


def install_onednn(builder):
    """Its newest wheel, without the drivers of GPUs, has products alone: its engines are SYCL's. The last wheel that has
    none of it is older, and has the rest."""
    builder.pip("install", "--no-deps", "onednn", "intel-sycl-rt", "intel-cmplr-lib-rt", "intel-cmplr-lib-ur", "tbb",
                "umf", "tcmlib")
    wheels = builder.folder / "wheels"
    builder.pip("download", "--no-deps", "-d", wheels, "onednn-cpu-gomp")
    with zipfile.ZipFile(next(wheels.glob("onednn_cpu_gomp*.whl"))) as wheel:
        member = next(name for name in wheel.namelist() if name.endswith("/libdnnl.so.3"))
        (builder.folder / "onednn-cpu-gomp").mkdir(exist_ok=True)
        (builder.folder / "onednn-cpu-gomp" / "libdnnl.so.3").write_bytes(wheel.read(member))
    shutil.rmtree(wheels)


def install_ggml(builder):
    source = builder.folder / "llama.cpp"
    builder.pip("download", "--no-deps", "--no-binary", "llama-cpp-python", "-d", source, "llama-cpp-python")
    with tarfile.open(next(source.glob("*.tar.gz"))) as archive:
        archive.extractall(source, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(source)
    tree = next(source.glob("*/vendor/llama.cpp"))
    build = builder.folder / "ggml"
    off = [f"-D{name}=OFF" for name in ("GGML_OPENMP", "LLAMA_BUILD_COMMON", "LLAMA_BUILD_TOOLS", "LLAMA_BUILD_TESTS",
                                        "LLAMA_BUILD_EXAMPLES", "LLAMA_CURL")]
    builder.run("cmake", "-S", tree, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", *off)
    builder.run("cmake", "--build", build, "--target", "ggml", "ggml-cpu")
    shutil.rmtree(source)


def by_pip(*packages):
    return lambda builder: builder.pip("install", *packages)


PARTS = [
    Part("openblas", 15, 60, 1, "OpenBLAS (scipy-openblas32)", by_pip("scipy-openblas32")),
    Part("mkl", 200, 900, 1, "Intel MKL", by_pip("mkl")),
    Part("onednn", 350, 1100, 2, "oneDNN", install_onednn),
    Part("onnxruntime", 60, 250, 1, "ONNX Runtime", by_pip("numpy", "onnx", "onnxruntime")),
    Part("ggml", 80, 100, 5, "ggml of llama.cpp, built here", lambda b: (b.pip("install", "numpy"), install_ggml(b))),
    Part("torch", 2500, 5500, 8, "PyTorch, which does not load without its CUDA libraries", by_pip("numpy", "torch")),
]


def ask(question):
    """Yes where nobody can be asked."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    return input(f"{question} [Y/n] ").strip().lower() in ("", "y", "yes")


def install(folder, names=(), yes=False):
    """Brings those of PARTS that are not there. One that fails is told and left out."""
    unknown = set(names) - {part.name for part in PARTS}
    if unknown:
        raise SystemExit(f"no such peer: {' '.join(sorted(unknown))}; there are {' '.join(p.name for p in PARTS)}")
    wanted = [part for part in PARTS if not names or part.name in names]
    missing = [part for part in wanted if not (folder / f"{part.name}.stamp").exists()]
    if not missing:
        return
    print(f"Other libraries to stand beside, into {folder}:")
    for part in missing:
        print(f"  {part.name:12} {part.download:5} MB to download, {part.disk:5} MB on disk, "
            f"about {part.minutes} min  {part.what}")
    print(f"  {'together':12} {sum(p.download for p in missing):5} MB to download, {sum(p.disk for p in missing):5} MB on "
        f"disk, about {sum(p.minutes for p in missing)} min  (--peers=NAME,NAME brings those alone)")
    if not yes and not ask("Go on?"):
        raise SystemExit("Nothing was installed.")
    folder.mkdir(parents=True, exist_ok=True)
    builder = Builder(folder)
    if not builder.python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    for index, part in enumerate(missing, 1):
        print(f"  {index} of {len(missing)}: {part.name}", flush=True)
        try:
            part.install(builder)
            (folder / f"{part.name}.stamp").write_text(time.strftime("%Y-%m-%d\n"))
        except (RuntimeError, OSError, StopIteration) as error:
            print(f"      left out: {error}", flush=True)


def environment(folder):
    """What the benchmark programs look at: $ATTEND_BENCH_<PEER>, for each library that is there."""
    site = "lib/python*/site-packages/"
    files = {
        "OPENBLAS": site + "scipy_openblas32/lib/libscipy_openblas.so",
        "MKL": "lib/libmkl_rt.so.*",
        "ONEDNN": "lib/libdnnl.so.3",
        "ONEDNN_PRIMITIVES": "onednn-cpu-gomp/libdnnl.so.3",
    }
    found = {name: next(folder.glob(pattern), None) for name, pattern in files.items()}
    variables = {f"ATTEND_BENCH_{name}": str(file.resolve()) for name, file in found.items() if file}
    if variables:  # where MKL and oneDNN find what they need
        path = [str((folder / "lib").resolve()), os.environ.get("LD_LIBRARY_PATH", "")]
        variables["LD_LIBRARY_PATH"] = ":".join(filter(None, path))
    return variables


def python(folder):
    """The environment's Python if it has peers for python_peers.py, and a libggml.so if there is one; or None."""
    ggml = next(folder.glob("ggml/**/libggml.so"), None)
    with_python = any((folder / f"{name}.stamp").exists() for name in ("torch", "onnxruntime", "ggml"))
    return (folder / "bin" / "python", ggml) if with_python else (None, None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("names", nargs="*", help=f"of {' '.join(part.name for part in PARTS)}; all by default")
    parser.add_argument("--yes", action="store_true", help="without asking")
    arguments = parser.parse_args()
    install(arguments.folder, arguments.names, arguments.yes)


if __name__ == "__main__":
    main()
