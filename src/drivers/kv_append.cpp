#include "drivers/kv_append.hpp"

namespace attend {

Need kv_append_need(const KvAppend &problem) {
  Need need;
  if (problem.k.to.slots != nullptr) {
    need.shared = aligned(problem.k.tokens.count() * static_cast<int64_t>(sizeof(int64_t)));
  }
  return need;
}

int64_t given_twice(const int64_t *slots, int64_t tokens, int64_t *room) {
  // In order already: nearly always, since neighbouring tokens have neighbouring slots.
  int64_t last = -1, count = 0;
  bool rises = true;
  for (int64_t t = 0; t < tokens; ++t) {
    if (slots[t] < 0) continue;
    rises = rises && slots[t] > last;
    last = slots[t];
    room[count++] = last;
  }
  if (rises) return -1;
  std::sort(room, room + count);
  const int64_t *const twice = std::adjacent_find(room, room + count);
  return twice == room + count ? -1 : *twice;
}

void kv_append(const KernelTable &kernels, const KvAppend &p, const Execution &execution) {
  const auto elements = [](const Tensor &x) { return x && x.count > 0 ? x.rows() * x.heads() : 0; };
  const int64_t of_k = elements(p.k.x), of_v = elements(p.v.x);
  for_tokens(execution, p.k.tokens.count(), of_k + of_v, [&](int64_t begin, int64_t end) {
    if (of_k > 0) rotate_tokens(kernels, p.k, begin, end);
    if (of_v > 0) rotate_tokens(kernels, p.v, begin, end);
  });
}

}  // namespace attend
