#include "gemm_peers.hpp"

#include <dlfcn.h>
#include <link.h>
#include <sched.h>

#include <cstdio>
#include <cstdlib>
#include <iterator>

#include "eigen.hpp"
#include "peer_kernels.hpp"

namespace attend::bench {
namespace {

template <class Function>
Function symbol(void *library, const char *name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

// scipy-openblas's wheel puts a prefix before every name.
template <class Function>
Function blas_symbol(void *library, const std::string &name) {
  for (const char *prefix : {"", "scipy_"}) {
    if (const auto found = symbol<Function>(library, (prefix + name).c_str())) return found;
  }
  return nullptr;
}

// "avx2" of a loaded libmkl_avx2.so.3: the branch that MKL chose with its first product. "" before it.
std::string loaded_mkl_branch() {
  std::string branch;
  dl_iterate_phdr(
      [](dl_phdr_info *info, size_t, void *found) {
        const std::string path = info->dlpi_name, stem = "/libmkl_";
        const size_t at = path.rfind(stem);
        if (at == std::string::npos) return 0;
        const std::string name = path.substr(at + stem.size(), path.find('.', at) - at - stem.size());
        constexpr const char *kBranches[] = {"def", "mc", "mc3", "avx", "avx2", "avx512", "avx10"};
        if (is_one_of(kBranches, name)) *static_cast<std::string *>(found) = name;
        return 0;
      },
      &branch);
  return branch;
}

void call_once(const GemmPeer &peer) {
  const std::vector<float> a(64 * 64, 1), b(64 * 64, 1);
  std::vector<float> c(64 * 64);
  if (peer.has(false)) peer.run(64, 64, 64, a.data(), b.data(), c.data());
}

void judge(GemmPeer *peer, Vectors used) { peer->left_out = why_left_out(peer->kernels, used, vectors_of_cpu()); }

// What it says of itself.
void ask_openblas(void *library, GemmPeer *peer) {
  const auto config = blas_symbol<const char *(*)()>(library, "openblas_get_config");
  if (config == nullptr) return;
  peer->version = config();
  if (const auto set_threads = blas_symbol<void (*)(int)>(library, "openblas_set_num_threads")) set_threads(1);
  const auto core = blas_symbol<const char *(*)()>(library, "openblas_get_corename");
  if (core != nullptr) peer->kernels = core();
  judge(peer, vectors_of_openblas(peer->kernels));
}

void ask_blis(void *library, GemmPeer *peer) {
  const auto version = symbol<const char *(*)()>(library, "bli_info_get_version_str");
  if (version == nullptr) return;
  peer->version = version();
  const auto query = symbol<int (*)()>(library, "bli_arch_query_id");
  const auto name = symbol<const char *(*)(int)>(library, "bli_arch_string");
  if (query != nullptr && name != nullptr) peer->kernels = name(query());
  judge(peer, vectors_of_blis(peer->kernels));
}

void ask_mkl(void *library, GemmPeer *peer) {
  const auto version = symbol<void (*)(char *, int)>(library, "MKL_Get_Version_String");
  if (version == nullptr) return;
  char text[200] = "";
  version(text, sizeof(text));
  peer->version = text;
  call_once(*peer);
  peer->kernels = loaded_mkl_branch();
#if defined(__x86_64__) || defined(__i386__)
  const bool is_zen = __builtin_cpu_is("amd") != 0;
#else
  const bool is_zen = false;
#endif
  judge(peer, vectors_of_mkl(peer->kernels, is_zen));
  if (peer->kernels == "def" && is_zen) peer->kernels = "def (Zen)";
}

void ask_onednn(void *library, GemmPeer *peer) {
  struct Version {
    int major, minor, patch;
  };
  const auto version = symbol<const Version *(*)()>(library, "dnnl_version");
  if (version == nullptr) return;
  const Version *v = version();
  peer->version = std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
  peer->onednn = symbol<GemmPeer::OneDnn>(library, "dnnl_sgemm");
  const auto isa = symbol<int (*)()>(library, "dnnl_get_effective_cpu_isa");
  const Vectors used = isa == nullptr ? Vectors::unknown : vectors_of_onednn(static_cast<unsigned>(isa()));
  peer->kernels = name_of(used);
  judge(peer, used);
}

// While one lives, TBB believes in one CPU, and so does every pool of threads that is made meanwhile.
class OneCpu {
 public:
  OneCpu() {
    sched_getaffinity(0, sizeof(all_), &all_);
    cpu_set_t one;
    CPU_ZERO(&one);
    for (size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
      if (CPU_ISSET(cpu, &all_)) CPU_SET(cpu, &one);
    }
    sched_setaffinity(0, sizeof(one), &one);
  }
  ~OneCpu() { sched_setaffinity(0, sizeof(all_), &all_); }
  OneCpu(const OneCpu &) = delete;
  OneCpu &operator=(const OneCpu &) = delete;

 private:
  cpu_set_t all_;
};

// RTLD_LOCAL: two libraries that both export sgemm_ stay apart.
bool open_peer(const std::string &path, const std::string &name, std::vector<GemmPeer> *peers) {
  void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return false;
  GemmPeer peer;
  peer.name = name;
  peer.sgemm = blas_symbol<GemmPeer::Fortran>(library, "sgemm_");
  peer.dgemm = blas_symbol<GemmPeer::Fortran>(library, "dgemm_");
  if (peer.sgemm == nullptr) peer.sgemm = symbol<GemmPeer::Fortran>(library, "libxsmm_sgemm");
  if (peer.dgemm == nullptr) peer.dgemm = symbol<GemmPeer::Fortran>(library, "libxsmm_dgemm");
  ask_openblas(library, &peer);
  ask_blis(library, &peer);
  ask_mkl(library, &peer);
  ask_onednn(library, &peer);
  if (peer.left_out.empty() && !peer.has(false)) return false;
  call_once(peer);
  peers->push_back(peer);
  return true;
}

// The file that the environment names, or else the first of the usual names that is there.
void open_named(const char *name, const char *variable, std::initializer_list<const char *> usual,
                std::vector<GemmPeer> *peers) {
  if (const char *path = std::getenv(variable)) {
    if (!open_peer(path, name, peers)) std::fprintf(stderr, "%s=%s: %s\n", variable, path, dlerror());
    return;
  }
  for (const char *path : usual) {
    if (open_peer(path, name, peers)) return;
  }
}

template <class T>
void call(GemmPeer::Fortran gemm, int64_t m, int64_t n, int64_t k, const T *a, const T *b, T *c, const char *layouts) {
  const int rows = static_cast<int>(m), columns = static_cast<int>(n), depth = static_cast<int>(k);
  const T one = 1, zero = 0;
  gemm(&layouts[0], &layouts[1], &rows, &columns, &depth, &one, a, layouts[0] == 'N' ? &rows : &depth, b,
       layouts[1] == 'N' ? &depth : &columns, &zero, c, &rows);
}

}  // namespace

void GemmPeer::run(int64_t m, int64_t n, int64_t k, const float *a, const float *b, float *c,
                   const char *layouts) const {
  if (is_eigen) return eigen::matmul(m, n, k, a, b, c);
  if (onednn != nullptr) {
    onednn(layouts[1], layouts[0], n, m, k, 1, b, layouts[1] == 'N' ? k : n, a, layouts[0] == 'N' ? m : k, 0, c, m);
  } else {
    call(sgemm, m, n, k, a, b, c, layouts);
  }
}

void GemmPeer::run(int64_t m, int64_t n, int64_t k, const double *a, const double *b, double *c,
                   const char *layouts) const {
  if (is_eigen) return eigen::matmul(m, n, k, a, b, c);
  call(dgemm, m, n, k, a, b, c, layouts);
}

std::vector<GemmPeer> find_gemm_peers(const std::vector<std::string> &paths) {
  // Read when they are loaded; ours gets its threads with every call.
  setenv("OPENBLAS_NUM_THREADS", "1", 1);
  setenv("BLIS_NUM_THREADS", "1", 1);
  setenv("MKL_THREADING_LAYER", "SEQUENTIAL", 1);
  if (const auto set_threads = symbol<void (*)(int)>(RTLD_DEFAULT, "omp_set_num_threads")) set_threads(1);
  const OneCpu meanwhile;
  std::vector<GemmPeer> peers;
  open_named("openblas", "ATTEND_BENCH_OPENBLAS", {"libopenblas.so.0"}, &peers);
  open_named("blis", "ATTEND_BENCH_BLIS", {"libblis.so.4"}, &peers);
  open_named("mkl", "ATTEND_BENCH_MKL", {"libmkl_rt.so.3", "libmkl_rt.so.2"}, &peers);
  open_named("onednn", "ATTEND_BENCH_ONEDNN", {"libdnnl.so.3", "libdnnl.so.2"}, &peers);
  if (!eigen::version().empty()) {
    GemmPeer peer;
    peer.name = "eigen";
    peer.version = eigen::version();
    peer.kernels = "compiled for this CPU";
    peer.is_eigen = true;
    peers.push_back(peer);
  }
  open_named("libxsmm", "ATTEND_BENCH_LIBXSMM", {"libxsmm.so.1"}, &peers);
  for (const std::string &path : paths) {
    if (!open_peer(path, path.substr(path.rfind('/') + 1), &peers))
      std::fprintf(stderr, "no sgemm_ in %s\n", path.c_str());
  }
  return peers;
}

}  // namespace attend::bench
