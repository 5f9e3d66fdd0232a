/* A program that was compiled with version 0.1: it has its own copy of what attend.h said then, which stays as it is.
 * Every function, every field at its place, against the library of today. A field's place is told by what the library
 * says when the field alone is wrong. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef int32_t attend_status;
typedef struct {
  void *data;
  uint32_t dtype, rank;
  int64_t shape[4], stride[4];
} tensor;
typedef struct {
  uint32_t size, flags;
  int32_t threads;
  uint32_t reserved;
  void *workspace;
  uint64_t workspace_size;
  char *message;
  uint64_t message_size;
  const void *executor;
} head; /* what options begin with; all of merge's and self-attention's */
typedef struct {
  head h;
  const tensor *bias, *a_scale, *b_scale, *a_zero, *b_zero;
} matmul_options;
typedef struct {
  head h;
  double scale;
  const tensor *mask, *bias, *lse;
} softmax_options;
typedef struct {
  head h;
  double scale, softcap;
  int64_t query_offset;
  const int64_t *query_offsets, *kv_lengths;
  int64_t window_left, window_right;
  const tensor *mask, *bias, *alibi_slopes, *sinks, *lse, *scores;
  uint32_t scores_stage, reserved2;
  const tensor *k_scale, *v_scale;
  const int64_t *kv_first;
  int64_t sequences;
  const int64_t *query_starts, *key_starts;
  const tensor *pages;
  int64_t key_offset;
  const tensor *state;
} attention_options;
typedef struct {
  uint32_t size, reserved;
  const tensor *w_q, *w_k, *w_v, *b_q, *b_k, *b_v, *w_o, *b_o;
} weights;

attend_status attend_matmul(double, const tensor *, const tensor *, double, const tensor *, const matmul_options *);
attend_status attend_matmul_workspace(double, const tensor *, const tensor *, double, const tensor *,
                                      const matmul_options *, uint64_t *);
attend_status attend_softmax(const tensor *, const tensor *, const softmax_options *);
attend_status attend_softmax_workspace(const tensor *, const tensor *, const softmax_options *, uint64_t *);
attend_status attend_attention(const tensor *, const tensor *, const tensor *, const tensor *,
                               const attention_options *);
attend_status attend_attention_workspace(const tensor *, const tensor *, const tensor *, const tensor *,
                                         const attention_options *, uint64_t *);
attend_status attend_attention_merge(const tensor *, const tensor *, const tensor *, const tensor *, const head *);
attend_status attend_attention_merge_workspace(const tensor *, const tensor *, const tensor *, const tensor *,
                                               const head *, uint64_t *);
attend_status attend_self_attention(const tensor *, const weights *, const tensor *, const head *,
                                    const attention_options *);
attend_status attend_self_attention_workspace(const tensor *, const weights *, const tensor *, const head *,
                                              const attention_options *, uint64_t *);
const char *attend_status_string(attend_status);
const char *attend_status_argument(attend_status);
uint32_t attend_version(void);
uint32_t attend_contract(void);
const char *attend_isa(void);
const char *attend_isa_name(int32_t);
attend_status attend_set_isa(const char *);
int32_t attend_threads(void);
attend_status attend_set_threads(int32_t);

enum {
  F32 = 1,
  F64 = 2,
  NULL_POINTER = 1,
  STRUCT_SIZE = 2,
  RANK = 3,
  VALUE = 7,
  UNSUPPORTED = 10,
  WORKSPACE_TOO_SMALL = 11,
  UNKNOWN_ISA = 13
};

static int failures = 0;

static void expect(int good, const char *what) {
  if (!good) printf("FAILED: %s\n", what), ++failures;
}

static void expect_wrong(attend_status status, int reason, const char *argument) {
  if ((status & 0xff) == reason && strcmp(attend_status_argument(status), argument) == 0) return;
  printf("FAILED: expected reason %d at %s: %d at \"%s\": %s\n", reason, argument, (int)(status & 0xff),
         attend_status_argument(status), attend_status_string(status));
  ++failures;
}

static tensor matrix(double *data, int64_t rows, int64_t columns) {
  tensor t = {NULL, F64, 2, {0}, {0}};
  t.data = data;
  t.shape[0] = rows;
  t.shape[1] = columns;
  t.stride[0] = 1;
  t.stride[1] = rows;
  return t;
}

/* X is 2 x 3; one head, one batch. */
static double x[6] = {1, 2, -1, 0.5, 0, 1}, y[9], z[9], row[3], other[3];
static tensor tx, ty, bad = {NULL, F64, 9, {0}, {0}};

static void check_head(head *h, attend_status (*run)(void)) {
  const head good = *h;
  h->size = 8, expect_wrong(run(), STRUCT_SIZE, "options.size"), *h = good;
  h->flags = 1u << 31, expect_wrong(run(), UNSUPPORTED, "options.flags"), *h = good;
  h->threads = -1, expect_wrong(run(), VALUE, "options.threads"), *h = good;
  h->reserved = 1, expect_wrong(run(), VALUE, "options.reserved"), *h = good;
  h->workspace_size = 1, expect_wrong(run(), NULL_POINTER, "options.workspace"), *h = good;
  h->flags = 1u << 16, expect(run() == 0, "a flag without effect"), *h = good;
}

static int near(double a, double b) { return fabs(a - b) < 1e-12; }

/* ---- matmul: Y = X^T X + bias ---- */
static matmul_options mo;
static attend_status run_matmul(void) {
  tensor transposed = tx;
  transposed.shape[0] = 3, transposed.shape[1] = 2, transposed.stride[0] = 2, transposed.stride[1] = 1;
  ty = matrix(y, 3, 3);
  return attend_matmul(1, &transposed, &tx, 0, &ty, &mo);
}
static void check_matmul(void) {
  static double large[144], product[144];
  double bias[3] = {10, 20, 30}, workspace[1];
  tensor tb = matrix(bias, 3, 1), transposed = tx, to;
  uint64_t bytes = 0;
  int i, j;
  mo.h.size = sizeof mo, mo.h.threads = 1, mo.bias = &tb;
  expect(run_matmul() == 0, "matmul");
  for (j = 0; j < 3; ++j) {
    for (i = 0; i < 3; ++i) {
      expect(near(y[3 * j + i], bias[i] + x[2 * i] * x[2 * j] + x[2 * i + 1] * x[2 * j + 1]), "matmul's values");
    }
  }
  check_head(&mo.h, run_matmul);
  mo.bias = &bad, expect_wrong(run_matmul(), RANK, "options.bias"), mo.bias = &tb;
  /* Large enough to be packed. */
  transposed = matrix(large, 12, 12), transposed.stride[0] = 12, transposed.stride[1] = 1, tb = matrix(large, 12, 12);
  to = matrix(product, 12, 12), mo.bias = NULL;
  expect(attend_matmul_workspace(1, &transposed, &tb, 0, &to, &mo, &bytes) == 0 && bytes > 0, "matmul_workspace");
  mo.h.workspace = workspace, mo.h.workspace_size = 1;
  expect_wrong(attend_matmul(1, &transposed, &tb, 0, &to, &mo), WORKSPACE_TOO_SMALL, "options.workspace_size");
}

/* ---- softmax of X's columns ---- */
static softmax_options so;
static attend_status run_softmax(void) {
  ty = matrix(y, 2, 3);
  return attend_softmax(&tx, &ty, &so);
}
static void check_softmax(void) {
  tensor lse = matrix(row, 1, 3);
  uint64_t bytes = 1;
  int j;
  so.h.size = sizeof so, so.h.threads = 1, so.scale = 2, so.lse = &lse;
  expect(run_softmax() == 0, "softmax");
  for (j = 0; j < 3; ++j) {
    const double a = exp(2 * x[2 * j]), b = exp(2 * x[2 * j + 1]);
    expect(near(y[2 * j], a / (a + b)) && near(row[j], log(a + b)), "softmax's values");
  }
  check_head(&so.h, run_softmax);
  so.scale = HUGE_VAL, expect_wrong(run_softmax(), VALUE, "options.scale"), so.scale = 0;
  so.mask = &bad, expect_wrong(run_softmax(), RANK, "options.mask"), so.mask = NULL;
  so.bias = &bad, expect_wrong(run_softmax(), RANK, "options.bias"), so.bias = NULL;
  so.lse = &bad, expect_wrong(run_softmax(), RANK, "options.lse"), so.lse = NULL;
  expect(attend_softmax_workspace(&tx, &ty, &so, &bytes) == 0, "softmax_workspace");
}

/* ---- attention of X with itself ---- */
static attention_options ao;
static attend_status run_attention(void) {
  ty = matrix(y, 2, 3);
  return attend_attention(&tx, &tx, &tx, &ty, &ao);
}
/* Against the formula: scale 1, the first `count` keys. */
static void check_values(const double *out, int count, const char *what) {
  int f, i, j;
  for (j = 0; j < 3; ++j) {
    double sum = 0, want[2] = {0, 0};
    for (i = 0; i < count; ++i) {
      const double p = exp(x[2 * i] * x[2 * j] + x[2 * i + 1] * x[2 * j + 1]);
      sum += p;
      for (f = 0; f < 2; ++f) want[f] += p * x[2 * i + f];
    }
    for (f = 0; f < 2; ++f) expect(near(out[2 * j + f], want[f] / sum), what);
  }
}
static void check_attention(void) {
  const int64_t two = 2, minus = -1, zero = 0;
  double workspace[1];
  tensor lse = matrix(row, 1, 3), scores = matrix(z, 3, 3);
  uint64_t bytes = 0;
  ao.h.size = sizeof ao, ao.h.threads = 1, ao.scale = 1, ao.lse = &lse, ao.scores = &scores, ao.scores_stage = 3;
  ao.kv_lengths = &two;
  expect(run_attention() == 0, "attention");
  check_values(y, 2, "attention's values");
  expect(near(z[0] + z[1], 1) && z[2] == 0, "attention's probabilities");
  expect(near(row[0], log(exp(5) + exp(0))), "attention's log-sum-exp");
  memset(&ao.scale, 0, sizeof ao - offsetof(attention_options, scale));
  check_head(&ao.h, run_attention);
  ao.scale = HUGE_VAL, expect_wrong(run_attention(), VALUE, "options.scale"), ao.scale = 0;
  ao.softcap = -1, expect_wrong(run_attention(), VALUE, "options.softcap"), ao.softcap = 0;
  ao.h.flags = 2, ao.query_offset = 1; /* causal, aligned at the end */
  expect_wrong(run_attention(), VALUE, "options.query_offset");
  ao.query_offset = 0, ao.query_offsets = &zero;
  expect_wrong(run_attention(), VALUE, "options.query_offsets");
  ao.h.flags = 0, ao.query_offsets = NULL;
  ao.kv_lengths = &minus, expect_wrong(run_attention(), VALUE, "options.kv_lengths"), ao.kv_lengths = NULL;
  ao.kv_first = &minus, expect_wrong(run_attention(), VALUE, "options.kv_first"), ao.kv_first = NULL;
  ao.window_left = 1, expect_wrong(run_attention(), VALUE, "options.window_left"), ao.window_left = 0;
  ao.window_right = 1, expect_wrong(run_attention(), VALUE, "options.window_left"), ao.window_right = 0;
  ao.mask = &bad, expect_wrong(run_attention(), RANK, "options.mask"), ao.mask = NULL;
  ao.bias = &bad, expect_wrong(run_attention(), RANK, "options.bias"), ao.bias = NULL;
  ao.alibi_slopes = &bad, expect_wrong(run_attention(), RANK, "options.alibi_slopes"), ao.alibi_slopes = NULL;
  ao.sinks = &bad, expect_wrong(run_attention(), RANK, "options.sinks"), ao.sinks = NULL;
  ao.lse = &bad, expect_wrong(run_attention(), RANK, "options.lse"), ao.lse = NULL;
  ao.scores = &bad, expect_wrong(run_attention(), RANK, "options.scores"), ao.scores = NULL;
  ao.scores_stage = 4, expect_wrong(run_attention(), VALUE, "options.scores_stage"), ao.scores_stage = 0;
  ao.reserved2 = 1, expect_wrong(run_attention(), VALUE, "options.reserved2"), ao.reserved2 = 0;
  expect(attend_attention_workspace(&tx, &tx, &tx, &ty, &ao, &bytes) == 0 && bytes > 0, "attention_workspace");
  ao.h.workspace = workspace, ao.h.workspace_size = 1;
  expect_wrong(run_attention(), WORKSPACE_TOO_SMALL, "options.workspace_size");
  memset(&ao, 0, sizeof ao);
}

/* ---- two keys, merged with the third ---- */
static tensor lse_a, lse_b, out_b;
static head go;
static attend_status run_merge(void) { return attend_attention_merge(&ty, &lse_a, &out_b, &lse_b, &go); }
static void check_merge(void) {
  uint64_t bytes = 1;
  tensor k = matrix(x, 2, 2), v = k, rest = matrix(x + 4, 2, 1);
  go.size = sizeof go, go.threads = 1;
  lse_a = matrix(row, 1, 3), lse_b = matrix(other, 1, 3), out_b = matrix(z, 2, 3), ty = matrix(y, 2, 3);
  ao.h.size = sizeof ao, ao.h.threads = 1, ao.scale = 1, ao.lse = &lse_a;
  expect(attend_attention(&tx, &k, &v, &ty, &ao) == 0, "attention of two keys");
  ao.lse = &lse_b;
  expect(attend_attention(&tx, &rest, &rest, &out_b, &ao) == 0, "attention of one key");
  expect(run_merge() == 0, "attention_merge");
  check_values(y, 3, "attention_merge's values");
  expect(attend_attention_merge_workspace(&ty, &lse_a, &out_b, &lse_b, &go, &bytes) == 0 && bytes == 0,
         "attention_merge_workspace");
  check_head(&go, run_merge);
  memset(&ao, 0, sizeof ao);
}

/* ---- self-attention whose weights are the identity ---- */
static weights w;
static head ho;
static attend_status run_self_attention(void) {
  ty = matrix(y, 2, 3);
  return attend_self_attention(&tx, &w, &ty, &ho, &ao);
}
static void check_self_attention(void) {
  static const char *const names[] = {"weights.w_q", "weights.w_k", "weights.w_v", "weights.b_q",
                                      "weights.b_k", "weights.b_v", "weights.w_o", "weights.b_o"};
  double identity[4] = {1, 0, 0, 1}, zeros[2] = {0, 0}, workspace[1];
  tensor one = matrix(identity, 2, 2), none = matrix(zeros, 2, 1);
  const tensor **const fields[] = {&w.w_q, &w.w_k, &w.w_v, &w.b_q, &w.b_k, &w.b_v, &w.w_o, &w.b_o};
  uint64_t bytes = 0;
  int i;
  w.size = sizeof w, ho.size = sizeof ho, ho.threads = 1, ao.h.size = sizeof ao, ao.scale = 1;
  w.w_q = w.w_k = w.w_v = w.w_o = &one, w.b_q = w.b_k = w.b_v = w.b_o = &none;
  expect(run_self_attention() == 0, "self_attention");
  check_values(y, 3, "self_attention's values");
  check_head(&ho, run_self_attention);
  for (i = 0; i < 8; ++i) {
    const tensor *const good = *fields[i];
    *fields[i] = &bad, expect_wrong(run_self_attention(), RANK, names[i]), *fields[i] = good;
  }
  w.size = 8, expect_wrong(run_self_attention(), STRUCT_SIZE, "weights.size"), w.size = sizeof w;
  w.reserved = 1, expect_wrong(run_self_attention(), VALUE, "weights.reserved"), w.reserved = 0;
  ao.reserved2 = 1, expect_wrong(run_self_attention(), VALUE, "attention_options.reserved2"), ao.reserved2 = 0;
  expect(attend_self_attention_workspace(&tx, &w, &ty, &ho, &ao, &bytes) == 0 && bytes > 0, "self_attention_workspace");
  ho.workspace = workspace, ho.workspace_size = 1;
  expect_wrong(run_self_attention(), WORKSPACE_TOO_SMALL, "options.workspace_size");
}

int main(void) {
  if (sizeof(void *) != 8) return 0;
  tx = matrix(x, 2, 3);
  check_matmul();
  check_softmax();
  check_attention();
  check_merge();
  check_self_attention();
  expect(attend_version() >= 100 && attend_contract() >= 2, "version");
  expect(strcmp(attend_isa(), attend_isa_name(0)) == 0 || attend_set_isa(NULL) == 0, "isa");
  expect_wrong(attend_set_isa("none such"), UNKNOWN_ISA, "name");
  expect(attend_set_threads(1) == 0 && attend_threads() == 1 && attend_set_threads(0) == 0, "threads");
  expect_wrong(attend_set_threads(-1), VALUE, "threads");
  expect_wrong(attend_softmax(NULL, &ty, NULL), NULL_POINTER, "x");
  printf("a program of version 0.1 with version %u: %d failures\n", (unsigned)attend_version(), failures);
  return failures != 0;
}
