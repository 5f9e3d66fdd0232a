// Products of 8-bit integers by VNNI with few columns, which are packed and signed, and A in place and unsigned: either may
// have been moved for that. The sums of A's rows, for B's zero points, are one column more, of ones: what reads A from
// memory has time for it.
#pragma once

#include "kernels/quads.hpp"

namespace attend {
namespace {

// By vpdpbusd, exactly modulo 2^32. U: whether B's bytes are the unsigned ones.
template <bool U>
ATTEND_INLINE Bytes add_quads(Bytes sums, Bytes of_a, Bytes of_b) {
  return U ? _mm512_dpbusd_epi32(sums, of_b, of_a) : _mm512_dpbusd_epi32(sums, of_a, of_b);
}
ATTEND_INLINE Bytes ones() { return _mm512_set1_epi8(1); }

ATTEND_INLINE int32_t number_at(const NumbersRef<const int32_t> &zero, int64_t i) {
  return zero.data == nullptr ? 0 : zero.data[i * zero.step];
}

// Lane i: the sum of v[i].
ATTEND_INLINE __m128i totals(const Bytes (&v)[4]) {
  const Bytes low = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
  const Bytes high = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
  const Bytes t = _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(t), _mm512_extracti64x4_epi64(t, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

// The sums of some columns of B, and of whatever follows up to a multiple of four of them.
template <bool U>
void sum_columns(const QuadColumns &b, int64_t columns, int64_t depth, int32_t *to) {
  for (int64_t j = 0; j < columns; j += 4) {
    Bytes sum[4];
    ATTEND_UNROLL
    for (int i = 0; i < 4; ++i) {
      const uint8_t *const column = b.first + smaller(j + i, columns - 1) * b.step;
      sum[i] = _mm512_setzero_si512();
      int64_t k = 0;
      for (; k + 64 <= depth; k += 64) sum[i] = add_quads<U>(sum[i], ones(), _mm512_loadu_si512(column + k));
      if (k < depth) sum[i] = add_quads<U>(sum[i], ones(), bytes_along(column + k, depth - k, _mm512_setzero_si512()));
    }
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to + j), totals(sum));
  }
}

struct FewColumns {
  bool moves_a;
  const uint8_t *b;
  int32_t zero[kFewColumns], sum[kFewColumns];
};

// Zero points of N rows of A from i on.
template <int N>
struct RowZeros {
  alignas(64) int32_t zero[N];
  __attribute__((noinline)) RowZeros(const IntegerBlock &x, const FewColumns &few, int64_t i) {
    for (int r = 0; r < N; ++r) zero[r] = number_at(x.a_zero, smaller(i + r, x.m - 1)) + (few.moves_a ? 128 : 0);
  }
};

// A's rows contiguous along k: the lanes along k, four rows at a time.
template <int NR>
void quad_dots(const IntegerBlock &x, const FewColumns &few) {
  constexpr int R = 4;
  const auto *const a = static_cast<const uint8_t *>(x.a.data);
  const Bytes move = move_of(few.moves_a);
  for (int64_t i = 0; i < x.m; i += R) {
    Bytes acc[NR + 1][R];
    const uint8_t *row[R];
    ATTEND_UNROLL
    for (int r = 0; r < R; ++r) {
      row[r] = a + smaller(i + r, x.m - 1) * x.a.row_stride;
      ATTEND_UNROLL
      for (int j = 0; j <= NR; ++j) acc[j][r] = _mm512_setzero_si512();
    }
    const auto step = [&](int64_t k, auto load) __attribute__((always_inline)) {
      ATTEND_UNROLL
      for (int r = 0; r < R; ++r) {
        const Bytes v = load(row[r] + k);
        ATTEND_UNROLL
        for (int j = 0; j < NR; ++j)
          acc[j][r] = add_quads<false>(acc[j][r], v, _mm512_loadu_si512(few.b + j * kQuadHeight<uint8_t> + k));
        acc[NR][r] = add_quads<false>(acc[NR][r], v, ones());
      }
    };
    int64_t k = 0;
    for (; k + 64 <= x.k; k += 64) {
      step(
          k, [&](const uint8_t *p) __attribute__((always_inline)) {
            __builtin_prefetch(p + 512);
            return _mm512_add_epi8(_mm512_loadu_si512(p), move);
          });
    }
    if (k < x.k) {
      step(
          k, [&](const uint8_t *p) __attribute__((always_inline)) { return bytes_along(p, x.k - k, move); });
    }
    __m128i zero = _mm_setzero_si128(), rest = zero;
    for (int j = NR; j >= 0; --j) {
      __m128i total = totals(acc[j]);
      if (j == NR) {
        const RowZeros<R> zeros(x, few, i);
        zero = _mm_load_si128(reinterpret_cast<const __m128i *>(zeros.zero));
        rest = _mm_sub_epi32(total, _mm_mullo_epi32(zero, _mm_set1_epi32(static_cast<int32_t>(x.k))));
        continue;
      }
      auto *const to = reinterpret_cast<__m128i *>(x.sums + j * x.ld + i);
      total = _mm_sub_epi32(total, _mm_mullo_epi32(zero, _mm_set1_epi32(few.sum[j])));
      total = _mm_sub_epi32(total, _mm_mullo_epi32(rest, _mm_set1_epi32(few.zero[j])));
      _mm_storeu_si128(to, x.begins ? total : _mm_add_epi32(total, _mm_loadu_si128(to)));
    }
  }
}

// A's columns contiguous: sixteen of them at a time pass over all rows, whose sums stay in the caches, a line at a time.
template <int NR>
void quad_sweeps(const IntegerBlock &x, const FewColumns &few) {
  constexpr int64_t kSweep = 16;
  const auto *const a = static_cast<const uint8_t *>(x.a.data);
  for (int64_t k0 = 0; k0 < x.k; k0 += kSweep) {
    const int64_t end = smaller(x.k, k0 + kSweep);
    const bool begins = k0 == 0;  // of the chunk: zero points of A are left out then
    for (int64_t i = 0; i < x.m; i += 64) {
      // acc[j][q]: rows 16 l + 4 q .. + 3 in the four lanes of part l of the register, as unpacking leaves them.
      Bytes acc[NR + 1][4];
      ATTEND_UNROLL
      for (int j = 0; j <= NR; ++j) {
        ATTEND_UNROLL
        for (int q = 0; q < 4; ++q) acc[j][q] = _mm512_setzero_si512();
      }
      for (int64_t k = k0; k < end; k += 4) {
        Bytes line[4];
        ATTEND_UNROLL
        for (int e = 0; e < 4; ++e) {
          line[e] = k + e < end ? bytes_along(a + (k + e) * x.a.col_stride + i, x.m - i, move_of(few.moves_a))
                                : _mm512_setzero_si512();
        }
        const Bytes low0 = _mm512_unpacklo_epi8(line[0], line[1]), high0 = _mm512_unpackhi_epi8(line[0], line[1]);
        const Bytes low1 = _mm512_unpacklo_epi8(line[2], line[3]), high1 = _mm512_unpackhi_epi8(line[2], line[3]);
        const Bytes quads[4] = {_mm512_unpacklo_epi16(low0, low1), _mm512_unpackhi_epi16(low0, low1),
                                _mm512_unpacklo_epi16(high0, high1), _mm512_unpackhi_epi16(high0, high1)};
        ATTEND_UNROLL
        for (int j = 0; j <= NR; ++j) {
          const Bytes b = j == NR ? ones() : quad_at(few.b + j * kQuadHeight<uint8_t> + k);
          ATTEND_UNROLL
          for (int q = 0; q < 4; ++q) acc[j][q] = add_quads<false>(acc[j][q], quads[q], b);
        }
      }
      Bytes zero[4], rest[4];
      ATTEND_UNROLL
      for (int j = NR; j >= 0; --j) {
        const Bytes low0 = _mm512_shuffle_i32x4(acc[j][0], acc[j][1], 0x44),
                    high0 = _mm512_shuffle_i32x4(acc[j][0], acc[j][1], 0xee);
        const Bytes low1 = _mm512_shuffle_i32x4(acc[j][2], acc[j][3], 0x44),
                    high1 = _mm512_shuffle_i32x4(acc[j][2], acc[j][3], 0xee);
        const Bytes sums[4] = {_mm512_shuffle_i32x4(low0, low1, 0x88), _mm512_shuffle_i32x4(low0, low1, 0xdd),
                               _mm512_shuffle_i32x4(high0, high1, 0x88), _mm512_shuffle_i32x4(high0, high1, 0xdd)};
        ATTEND_UNROLL
        for (int v = 0; v < 4; ++v) {
          const int64_t row = i + v * kQuadLanes;
          if (row >= x.m) continue;
          if (j == NR) {
            zero[v] = _mm512_setzero_si512();
            if (begins) {
              const RowZeros<kQuadLanes> zeros(x, few, row);
              zero[v] = _mm512_load_si512(zeros.zero);
            }
            rest[v] =
                _mm512_sub_epi32(sums[v], _mm512_mullo_epi32(zero[v], _mm512_set1_epi32(static_cast<int32_t>(x.k))));
            continue;
          }
          int32_t *const to = x.sums + j * x.ld + row;
          Bytes total = _mm512_sub_epi32(sums[v], _mm512_mullo_epi32(zero[v], _mm512_set1_epi32(few.sum[j])));
          total = _mm512_sub_epi32(total, _mm512_mullo_epi32(rest[v], _mm512_set1_epi32(few.zero[j])));
          _mm512_storeu_si512(to, x.begins && begins ? total : _mm512_add_epi32(total, _mm512_loadu_si512(to)));
        }
      }
    }
  }
}

void few_columns(const IntegerBlock &x) {
  auto *const b = reinterpret_cast<uint8_t *>(x.b_panel);
  const bool moves_b = x.b.type == Dtype::u8;
  FewColumns few = {x.a.type == Dtype::i8, b, {}, {}};
  for (int64_t j = 0; j < x.n; ++j) {
    uint8_t *const to = b + j * kQuadHeight<uint8_t>;
    pack_column(static_cast<const uint8_t *>(x.b.data) + j * x.b.col_stride, x.b.row_stride, x.k, moves_b, to);
    few.zero[j] = number_at(x.b_zero, j) - (moves_b ? 128 : 0);
  }
  sum_columns<false>({b, kQuadHeight<uint8_t>}, x.n, x.k, few.sum);
  with_power_above<kFewColumns>(
      x.n, [&](auto nr) __attribute__((always_inline)) {
        constexpr int NR = decltype(nr)::value;
        x.a.col_stride == 1 ? quad_dots<NR>(x, few) : quad_sweeps<NR>(x, few);
      });
}

}  // namespace
}  // namespace attend
