#include "drivers/self_attention.hpp"

#include <algorithm>

namespace attend {
namespace {

// What lies between two steps.
Tensor dense(Dtype dtype, int64_t rows, int64_t columns, int64_t heads, int64_t batch) {
  Tensor t = {};
  t.given = true;
  t.dtype = acc_of(dtype);
  t.shape = {rows, columns, heads, batch};
  t.stride = {1, rows, rows * columns, rows * columns * heads};
  for (size_t i = 0; i < 4; ++i) {
    if (t.shape[i] == 1) t.stride[i] = 0;
  }
  return t;
}

int64_t bytes_of(const Tensor &t) { return aligned(t.rows() * t.columns() * t.heads() * t.batch() * size_of(t.dtype)); }

// The steps of one call, in order; their operands in the workspace still without data.
struct Plan {
  Matmul q, k, v;
  Attention &attention;  // the problem's own: a copy takes as long as a small product
  Matmul output;         // for head 0; each further head adds its share
  bool projects;
  bool rounds;  // these add up beside `out`, which is of a narrower type

  explicit Plan(SelfAttention &p) : attention(p.attention), projects(p.w_o.given) {
    rounds = projects && p.w_o.heads() > 1 && p.out.is_narrow();
    const int64_t items = p.x.columns(), batch = p.x.batch();
    q = projection(p, p.w_q, p.b_q);
    k = projection(p, p.w_k, p.b_k);
    v = projection(p, p.w_v, p.b_v);
    attention.q = q.c;
    attention.k = k.c;
    attention.v = v.c;
    attention.out = projects ? dense(p.out.dtype, p.w_v.rows(), items, p.w_q.heads(), batch) : p.out;
    if (!projects) return;
    output.a = p.w_o;
    output.b = attention.out;
    output.c = rounds ? dense(p.out.dtype, p.out.rows(), items, 1, batch) : p.out;
    output.bias = p.b_o;
    output.a.shape[2] = output.b.shape[2] = 1;
    output.a.stride[2] = output.b.stride[2] = 0;
  }

  static Matmul projection(const SelfAttention &p, const Tensor &weight, const Tensor &bias) {
    Matmul m;
    m.a = weight;
    m.b = p.x;
    m.c = dense(p.out.dtype, weight.rows(), p.x.columns(), weight.heads(), p.x.batch());
    m.bias = bias;
    return m;
  }

  Need need() const {
    Need all;
    int64_t faster = 0, fastest = 0;
    for (const Need &part : {matmul_need(q), matmul_need(k), matmul_need(v), attention_need(attention),
                             projects ? matmul_need(output) : Need()}) {
      const int64_t asked = part.shared + part.per_thread + part.faster;
      all.per_thread = std::max(all.per_thread, part.shared + part.per_thread);
      faster = std::max(faster, asked);
      fastest = std::max(fastest, asked + part.fastest);
      all.tasks = std::max(all.tasks, part.tasks);
    }
    all.faster = faster - all.per_thread;
    all.fastest = fastest - faster;
    all.shared = bytes_of(attention.q) + bytes_of(attention.k) + bytes_of(attention.v) +
                 (projects ? bytes_of(attention.out) : 0) + (rounds ? bytes_of(output.c) : 0);
    return all;
  }
};

// (Not inlined, like self_attention_need: with a plan beside the scratch the frame would be over 8 KiB.)
__attribute__((noinline)) void compute(const KernelTable &kernels, SelfAttention &problem, const Scratch &scratch) {
  Plan plan(problem);
  char *next = scratch.shared();
  const auto place = [&](Tensor &in_step, Tensor &in_attention) {
    in_step.data = in_attention.data = next;
    next += bytes_of(in_attention);
  };
  place(plan.q.c, plan.attention.q);
  place(plan.k.c, plan.attention.k);
  place(plan.v.c, plan.attention.v);
  if (plan.projects) place(plan.output.b, plan.attention.out);
  if (plan.rounds) plan.output.c.data = next;

  // The steps share the scratch of the threads, which is large enough for each: none of them can fail.
  Execution step;
  step.threads = scratch.threads();
  step.executor = scratch.executor();
  step.workspace = scratch.of_thread(0);
  step.workspace_size = static_cast<uint64_t>(scratch.per_thread() * scratch.threads());
  for (const Matmul *projection : {&plan.q, &plan.k, &plan.v}) matmul(kernels, *projection, step);
  attention(kernels, plan.attention, step);
  if (!plan.projects) return;
  for (int64_t head = 0; head < problem.w_o.heads(); ++head) {
    Matmul share = plan.output;
    // Weights without elements may have no data, to which nothing can be added.
    if (problem.w_o.count > 0)
      share.a.data = static_cast<char *>(problem.w_o.data) + head * problem.w_o.stride[2] * size_of(problem.w_o.dtype);
    const Tensor &attended = plan.attention.out;
    share.b.data = static_cast<char *>(attended.data) + head * attended.stride[2] * size_of(attended.dtype);
    if (head > 0) {
      share.beta = 1;
      share.bias = Tensor();
    }
    matmul(kernels, share, step);
  }
  for (int64_t b = 0; plan.rounds && b < problem.out.batch(); ++b) {
    const Tensor &out = problem.out;
    kernels.convert({out.rows(), out.columns(), plan.output.c.matrix(0, 0, 0, b), out.matrix(0, 0, 0, b), {}});
  }
}

}  // namespace

__attribute__((noinline)) Need self_attention_need(SelfAttention &problem) { return Plan(problem).need(); }

Acquired self_attention(const KernelTable &kernels, SelfAttention &problem, const Execution &execution) {
  const Scratch scratch(execution, self_attention_need(problem), execution.usable_threads());
  if (scratch.result() == Acquired::ok) compute(kernels, problem, scratch);
  return scratch.result();
}

}  // namespace attend
