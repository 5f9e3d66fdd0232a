// Which kernels another library runs on this CPU, from what it says itself, and whether these are worth standing beside.
// No library here, so that a test can make the answers up.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_BENCH_PEER_KERNELS_HPP
#define ATTEND_BENCH_PEER_KERNELS_HPP

#include <algorithm>
#include <string>

namespace attend::bench {

// What vectors kernels use. `unknown` where a library does not say, or this is no x86.
enum class Vectors { unknown, sse, avx, avx2, avx512 };

inline const char *name_of(Vectors vectors) {
  constexpr const char *kNames[] = {"unknown", "SSE", "AVX", "AVX2", "AVX-512"};
  return kNames[static_cast<int>(vectors)];
}

inline Vectors vectors_of_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return Vectors::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Vectors::avx2;
  if (__builtin_cpu_supports("avx")) return Vectors::avx;
  return Vectors::sse;
#else
  return Vectors::unknown;
#endif
}

template <class Names>
bool is_one_of(const Names &names, const std::string &name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

// openblas_get_corename(). Cores that are not named here, those of other architectures among them, are unknown.
inline Vectors vectors_of_openblas(const std::string &core) {
  constexpr const char *kAvx512[] = {"SkylakeX", "Cooperlake", "SapphireRapids", "Zen4", "Zen5"};
  constexpr const char *kAvx2[] = {"Haswell", "Zen", "Broadwell", "Excavator"};
  constexpr const char *kAvx[] = {"Sandybridge", "Bulldozer", "Piledriver", "Steamroller"};
  constexpr const char *kSse[] = {"Prescott", "Core2",     "Penryn", "Dunnington", "Nehalem",   "Atom",   "Athlon",
                                  "Opteron",  "Barcelona", "Bobcat", "Nano",       "Northwood", "Generic"};
  if (is_one_of(kAvx512, core)) return Vectors::avx512;
  if (is_one_of(kAvx2, core)) return Vectors::avx2;
  if (is_one_of(kAvx, core)) return Vectors::avx;
  if (is_one_of(kSse, core) || core.rfind("Opteron", 0) == 0) return Vectors::sse;
  return Vectors::unknown;
}

// bli_arch_string().
inline Vectors vectors_of_blis(const std::string &arch) {
  constexpr const char *kAvx512[] = {"skx", "knl", "zen4", "zen5"};
  constexpr const char *kAvx2[] = {"haswell", "zen", "zen2", "zen3", "excavator"};
  constexpr const char *kAvx[] = {"sandybridge", "bulldozer", "piledriver", "steamroller"};
  constexpr const char *kSse[] = {"penryn", "generic"};
  if (is_one_of(kAvx512, arch)) return Vectors::avx512;
  if (is_one_of(kAvx2, arch)) return Vectors::avx2;
  if (is_one_of(kAvx, arch)) return Vectors::avx;
  return is_one_of(kSse, arch) ? Vectors::sse : Vectors::unknown;
}

// dnnl_get_effective_cpu_isa(): a set of bits in which each extension contains those before it.
inline Vectors vectors_of_onednn(unsigned isa) {
  if ((isa & 0x20) != 0) return Vectors::avx512;
  if ((isa & 0x4) != 0) return Vectors::avx2;
  if ((isa & 0x2) != 0) return Vectors::avx;
  return isa != 0 ? Vectors::sse : Vectors::unknown;
}

// MKL loads libmkl_<branch>.so with the first product. "def", its oldest code, also holds the kernels for AMD's Zen.
inline Vectors vectors_of_mkl(const std::string &branch, bool is_zen) {
  if (branch == "avx512" || branch == "avx10") return Vectors::avx512;
  if (branch == "avx2") return Vectors::avx2;
  if (branch == "avx") return Vectors::avx;
  if (branch == "def" && is_zen) return Vectors::avx2;
  return branch.empty() ? Vectors::unknown : Vectors::sse;
}

// Why a peer is left out, or "". Kernels without fused multiply-add on a CPU that has it are those for CPUs that the
// library does not know: two to eight times slower than what its newer version has. AVX2 on a CPU with AVX-512 may be
// a choice, and stays.
inline std::string why_left_out(const std::string &kernels, Vectors used, Vectors cpu) {
  if (used == Vectors::unknown || used >= Vectors::avx2 || cpu < Vectors::avx2) return "";
  return "it runs its fallback kernels here (" + kernels + ": " + name_of(used) + " on a CPU with " + name_of(cpu) +
         "), which a newer version would not";
}

}  // namespace attend::bench

#endif  // ATTEND_BENCH_PEER_KERNELS_HPP
