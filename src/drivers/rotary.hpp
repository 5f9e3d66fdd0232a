// Rotation and the way into a cache above their kernel: where each token comes from and goes, threads.
#pragma once

#include "drivers/scratch.hpp"
#include "drivers/tokens.hpp"

namespace attend {

struct Rotary {
  Tensor x, y;
  Tensor cos, sin;  // (pairs, positions, heads or 1, sequences or 1); absent: nothing is rotated
  Tensor scale;     // of y; absent: none
  Tokens tokens;    // the columns of x
  Destination to;   // in y
  int64_t pairs = 0;
  bool interleaved = false, inverse = false, computes_scale = false;
};

void rotary(const KernelTable &kernels, const Rotary &problem, const Execution &execution);

// Tokens begin .. end-1.
void rotate_tokens(const KernelTable &kernels, const Rotary &problem, int64_t begin, int64_t end);

// f(begin, end) for all tokens, in tasks of `elements` a token.
template <class F>
void for_tokens(const Execution &execution, int64_t tokens, int64_t elements, const F &f) {
  // Of a task, and of the whole below which a second thread does not pay. Where there are enough for all threads, as many
  // tokens as the kernel takes at once: what lies in runs of tokens is read and written in longer ones.
  constexpr int64_t kTaskElements = 1 << 14, kTaskTokens = 32;
  const int64_t least = std::clamp<int64_t>(kTaskElements / std::max<int64_t>(1, elements), 1, tokens);
  const int usable = static_cast<int>(std::min<int64_t>(execution.usable_threads(), (tokens + least - 1) / least));
  const int64_t together = std::max(least, std::min(kTaskTokens, tokens / (4 * usable)));
  const int64_t tasks = (tokens + together - 1) / together;
  const int threads = static_cast<int>(std::min<int64_t>(usable, tasks));
  parallel_for(execution.executor, threads, tasks,
               [&](int64_t task, int) { f(task * together, std::min(tokens, (task + 1) * together)); });
}

}  // namespace attend
