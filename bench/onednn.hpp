// oneDNN's softmax, and attention composed of its matmul and softmax, as rows beside ours: by the C interface of its
// third major version, from a library that is opened at run time. $ATTEND_BENCH_ONEDNN_PRIMITIVES names it, else
// $ATTEND_BENCH_ONEDNN, else libdnnl.so.3 where there is one.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_BENCH_ONEDNN_HPP
#define ATTEND_BENCH_ONEDNN_HPP

#include <cstdint>
#include <functional>
#include <string>

namespace attend::bench::onednn {

// "" if there is none, or none that may stand beside ours: left_out() says why then. The first call holds its OpenMP to
// one thread.
std::string version();
std::string kernels();
std::string left_out();

// Each returns the call to time, whose memory is the caller's, or an empty function if oneDNN has none but reference code.
// Softmax down the columns of an M x N matrix, columns or rows contiguous.
std::function<void()> softmax(int64_t rows, int64_t columns, bool contiguous_columns, const float *x, float *y);

// Attention of [head, N, D] arrays, unfused: S = Q K^T, softmax, S V, with memory for all of S. oneDNN's product could
// scale on the fly; `scaled_k`, scaled beforehand, saves it even that.
std::function<void()> attention(int64_t features, int64_t items, int64_t heads, const float *q, const float *scaled_k,
                                const float *v, float *out);

}  // namespace attend::bench::onednn

#endif  // ATTEND_BENCH_ONEDNN_HPP
