// Whether a benchmark's peer that runs its oldest kernels is noticed, whatever it calls them.
#include "../bench/peer_kernels.hpp"

#include "support.hpp"

using namespace attend::bench;

TEST_CASE("peers on fallback kernels are left out, with the reason") {
  // Debian 12's OpenBLAS 0.3.21 on CPUs that are newer than it.
  const std::string why = why_left_out("Prescott", vectors_of_openblas("Prescott"), Vectors::avx512);
  CHECK(why.find("Prescott") != std::string::npos);
  CHECK(why.find("AVX-512") != std::string::npos);
  CHECK(!why_left_out("generic", vectors_of_blis("generic"), Vectors::avx2).empty());
  CHECK(!why_left_out("Sandybridge", vectors_of_openblas("Sandybridge"), Vectors::avx2).empty());
  CHECK(!why_left_out("sse41", vectors_of_onednn(0x1), Vectors::avx2).empty());
  CHECK(!why_left_out("avx", vectors_of_onednn(0x3), Vectors::avx512).empty());
  CHECK(!why_left_out("def", vectors_of_mkl("def", false), Vectors::avx512).empty());
}

TEST_CASE("peers on kernels for this CPU stay") {
  CHECK(why_left_out("Haswell", vectors_of_openblas("Haswell"), Vectors::avx2).empty());
  CHECK(why_left_out("SkylakeX", vectors_of_openblas("SkylakeX"), Vectors::avx512).empty());
  CHECK(why_left_out("zen3", vectors_of_blis("zen3"), Vectors::avx2).empty());
  CHECK(why_left_out("avx2", vectors_of_onednn(0x7), Vectors::avx2).empty());
  CHECK(vectors_of_onednn(0xfef) == Vectors::avx512);
  CHECK(why_left_out("def", vectors_of_mkl("def", true), Vectors::avx2).empty());
  CHECK(why_left_out("avx512", vectors_of_mkl("avx512", false), Vectors::avx512).empty());
  // AVX2 beside AVX-512 may be the library's choice.
  CHECK(why_left_out("Haswell", vectors_of_openblas("Haswell"), Vectors::avx512).empty());
}

TEST_CASE("what is not known is no reason") {
  CHECK(why_left_out("NEOVERSEN1", vectors_of_openblas("NEOVERSEN1"), Vectors::unknown).empty());
  CHECK(why_left_out("Zen6", vectors_of_openblas("Zen6"), Vectors::avx512).empty());
  CHECK(why_left_out("Prescott", vectors_of_openblas("Prescott"), Vectors::sse).empty());
}
