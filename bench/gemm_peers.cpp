#include "gemm_peers.hpp"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

#include "eigen.hpp"

namespace attend::bench {
namespace {

template <class Function>
Function symbol(void *library, const char *name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

// RTLD_LOCAL: two libraries that both export sgemm_ stay apart.
bool open_peer(const std::string &path, const std::string &name, std::vector<GemmPeer> *peers) {
  void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return false;
  GemmPeer peer;
  peer.name = name;
  peer.sgemm = symbol<GemmPeer::Fortran>(library, "sgemm_");
  peer.dgemm = symbol<GemmPeer::Fortran>(library, "dgemm_");
  if (peer.sgemm == nullptr) peer.sgemm = symbol<GemmPeer::Fortran>(library, "libxsmm_sgemm");
  if (peer.dgemm == nullptr) peer.dgemm = symbol<GemmPeer::Fortran>(library, "libxsmm_dgemm");
  if (const auto config = symbol<const char *(*)()>(library, "openblas_get_config")) peer.version = config();
  if (const auto version = symbol<const char *(*)()>(library, "bli_info_get_version_str")) peer.version = version();
  struct OneDnnVersion {
    int major, minor, patch;
  };
  if (const auto version = symbol<const OneDnnVersion *(*)()>(library, "dnnl_version")) {
    const OneDnnVersion *v = version();
    peer.version = std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
    peer.onednn = symbol<GemmPeer::OneDnn>(library, "dnnl_sgemm");
  }
  if (!peer.has(false)) return false;
  peers->push_back(peer);
  return true;
}

template <class T>
void call(GemmPeer::Fortran gemm, int64_t m, int64_t n, int64_t k, const T *a, const T *b, T *c) {
  const int rows = static_cast<int>(m), columns = static_cast<int>(n), depth = static_cast<int>(k);
  const T one = 1, zero = 0;
  gemm("N", "N", &rows, &columns, &depth, &one, a, &rows, b, &depth, &zero, c, &rows);
}

}  // namespace

void GemmPeer::run(int64_t m, int64_t n, int64_t k, const float *a, const float *b, float *c) const {
  if (is_eigen) return eigen::matmul(m, n, k, a, b, c);
  if (onednn != nullptr) {
    onednn('N', 'N', n, m, k, 1, b, k, a, m, 0, c, m);
  } else {
    call(sgemm, m, n, k, a, b, c);
  }
}

void GemmPeer::run(int64_t m, int64_t n, int64_t k, const double *a, const double *b, double *c) const {
  if (is_eigen) return eigen::matmul(m, n, k, a, b, c);
  call(dgemm, m, n, k, a, b, c);
}

std::vector<GemmPeer> find_gemm_peers(const std::vector<std::string> &paths) {
  // Read when they are loaded; ours gets its threads with every call.
  setenv("OPENBLAS_NUM_THREADS", "1", 1);
  setenv("BLIS_NUM_THREADS", "1", 1);
  if (const auto set_threads = symbol<void (*)(int)>(RTLD_DEFAULT, "omp_set_num_threads")) set_threads(1);
  std::vector<GemmPeer> peers;
  open_peer("libopenblas.so.0", "openblas", &peers);
  open_peer("libblis.so.4", "blis", &peers);
  open_peer("libdnnl.so.2", "onednn", &peers) || open_peer("libdnnl.so.3", "onednn", &peers);
  if (!eigen::version().empty()) {
    GemmPeer peer;
    peer.name = "eigen";
    peer.version = eigen::version();
    peer.is_eigen = true;
    peers.push_back(peer);
  }
  open_peer("libxsmm.so.1", "libxsmm", &peers);
  for (const std::string &path : paths) {
    if (!open_peer(path, path.substr(path.rfind('/') + 1), &peers))
      std::fprintf(stderr, "no sgemm_ in %s\n", path.c_str());
  }
  return peers;
}

}  // namespace attend::bench
