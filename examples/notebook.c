/* The notebook on self-attention (S. Prince, Understanding Deep Learning, chapter 12), cell by cell, through the C ABI.
 *
 * Everything is f64, like NumPy's arrays. The inputs are drawn with NumPy's generator, the numbers printed as NumPy
 * prints them and compared with the digits that the notebook shows: the program ends with 1 if one of them differs.
 *
 * SPDX-License-Identifier: BSD-3-Clause
 */
#include <attend/attend.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "numpy_random.h"

enum { N = 3, D = 4 };  /* number of inputs, dimensions of each */
enum { H = 2, DH = 2 }; /* the multi-head form: heads, dimensions of each */

/* What the notebook prints. An array [N][D] here is the notebook's transposed output, one row per item; to attend
 * the same memory is a D x N matrix, one column per item. */
static const double kTrueX[N][D] = {{1.78862847, 0.43650985, 0.09649747, -1.8634927},
                                    {-0.2773882, -0.35475898, -0.08274148, -0.62700068},
                                    {-0.04381817, -0.47721803, -1.31386475, 0.88462238}};
static const double kTrueUnscaled[N][D] = {{0.94744244, -0.24348429, -0.91310441, -0.44522983},
                                           {1.64201168, -0.08470004, 4.02764044, 2.18690791},
                                           {1.61949281, -0.06641533, 3.96863308, 2.15858316}};
static const double kTrueUnscaledAttention[N][N] = {{1.24326146e-13, 9.98281489e-01, 1.71851130e-03},
                                                    {2.79525306e-12, 5.85506360e-03, 9.94144936e-01},
                                                    {5.05707907e-03, 6.54776072e-03, 9.88395160e-01}};
/* What the notebook would print if its scaled cell kept the scaled scores, and NumPy's result for the multi-head
 * form. */
static const double kTrueScaled[N][D] = {{0.97411966, -0.23738409, -0.72333202, -0.34413007},
                                         {1.59622051, -0.09516106, 3.70194096, 2.01339538},
                                         {1.32638014, 0.13062402, 3.02371664, 1.6902419}};
static const double kTrueScaledAttention[N][N] = {{3.38843552e-07, 9.60161968e-01, 3.98376935e-02},
                                                  {1.55730194e-06, 7.12734969e-02, 9.28724946e-01},
                                                  {6.20418746e-02, 7.05962187e-02, 8.67361907e-01}};
static const double kTrueMultiHead[N][D] = {{0.69254502, 4.12696219, -2.4760237, 0.36644307},
                                            {-0.51365881, 2.17076585, -2.15123694, 0.10333887},
                                            {0.34075488, 0.41278529, -0.558509, 1.11736864}};

static int differences = 0;

/* ----------------------------------------------------------------------------------------------------- checking -- */

static void check(attend_status status, const char *call) {
  if (status == ATTEND_OK) return;
  const char *argument = attend_status_argument(status);
  fprintf(stderr, "notebook: %s: %s%s%s\n", call, attend_status_string(status), *argument ? ": " : "", argument);
  exit(1);
}

/* Compares what would be printed, so that "the same" means every digit that the notebook shows. */
static void compare(const char *what, const double *values, const double *expected, int count, int scientific) {
  for (int i = 0; i < count; ++i) {
    char value_text[400], expected_text[400];
    snprintf(value_text, sizeof value_text, scientific ? "%.8e" : "%.8f", values[i]);
    snprintf(expected_text, sizeof expected_text, scientific ? "%.8e" : "%.8f", expected[i]);
    if (strcmp(value_text, expected_text) == 0) continue;
    fprintf(stderr, "notebook: %s, element %d: %s instead of %s\n", what, i, value_text, expected_text);
    ++differences;
  }
}

/* ----------------------------------------------------------------------------------------------------- printing -- */

/* NumPy chooses one format for a whole array: scientific if its numbers lie far apart, otherwise as many places as the
 * longest of them needs, at most 8. */
typedef struct number_format {
  int scientific, before_point, after_point;
} number_format;

static number_format choose_format(const double *values, int count) {
  double smallest = INFINITY, largest = 0;
  for (int i = 0; i < count; ++i) {
    if (values[i] == 0) continue;
    smallest = fmin(smallest, fabs(values[i]));
    largest = fmax(largest, fabs(values[i]));
  }
  number_format format = {largest >= 1e8 || smallest < 1e-4 || largest > 1000 * smallest, 0, 0};
  for (int i = 0; i < count; ++i) {
    char text[400] = "";
    snprintf(text, sizeof text, format.scientific ? "%.8e" : "%.8f", values[i]);
    const int before = (int)strcspn(text, ".");
    int after = 8;
    while (!format.scientific && after > 0 && text[before + after] == '0') --after;
    if (before > format.before_point) format.before_point = before;
    if (after > format.after_point) format.after_point = after;
  }
  return format;
}

static void print_number(number_format format, double value) {
  char text[400];
  snprintf(text, sizeof text, format.scientific ? "%.8e" : "%.8f", value);
  const int before = (int)strcspn(text, ".");
  if (!format.scientific) {
    text[before + 1 + format.after_point] = '\0';
    for (char *end = text + strlen(text); end[-1] == '0'; --end)
      end[-1] = ' '; /* 1.6902419 is padded, not 1.69024190 */
  }
  printf("%*s%s", format.before_point - before, "", text);
}

/* print(matrix): element (i, j) lies at values[i * row_stride + j * column_stride]. */
static void print_matrix(const double *values, int rows, int columns, int row_stride, int column_stride) {
  const number_format format = choose_format(values, rows * columns);
  for (int i = 0; i < rows; ++i) {
    printf(i == 0 ? "[[" : " [");
    for (int j = 0; j < columns; ++j) {
      if (j > 0) printf(" ");
      print_number(format, values[i * row_stride + j * column_stride]);
    }
    printf(i == rows - 1 ? "]]\n" : "]\n");
  }
}

/* print(all_x): a Python list of D x 1 arrays. */
static void print_list_of_columns(double columns[N][D]) {
  for (int n = 0; n < N; ++n) {
    const number_format format = choose_format(columns[n], D);
    for (int i = 0; i < D; ++i) {
      printf(i > 0 ? "       [" : n > 0 ? "array([[" : "[array([[");
      print_number(format, columns[n][i]);
      printf(i < D - 1 ? "],\n" : n < N - 1 ? "]]), " : "]])]\n");
    }
  }
}

/* print(attention): a list of N arrays of 1 x 1, which is what the notebook's dot products are. */
static void print_nested_list(const double values[N]) {
  const number_format format = choose_format(values, N);
  for (int i = 0; i < N; ++i) {
    printf(i == 0 ? "[[[" : " [[");
    print_number(format, values[i]);
    printf(i == N - 1 ? "]]]\n" : "]]\n\n");
  }
}

/* ------------------------------------------------------------------------------------------------------ tensors -- */

static attend_tensor strided(double *data, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride) {
  const attend_tensor tensor = {data, ATTEND_F64, 2, {rows, columns, 1, 1}, {row_stride, column_stride, 0, 0}};
  return tensor;
}

/* Columns one after the other in memory: C's double[columns][rows]. */
static attend_tensor by_columns(double *data, int64_t rows, int64_t columns) {
  return strided(data, rows, columns, 1, rows);
}

/* Rows one after the other, C's double[rows][columns]: the notebook's Omega. Not transposed, only its strides
 * differ. */
static attend_tensor by_rows(double *data, int64_t rows, int64_t columns) {
  return strided(data, rows, columns, columns, 1);
}

static attend_tensor per_head(double *data, int64_t rows, int64_t columns, int64_t row_stride, int64_t head_stride) {
  const attend_tensor tensor = {data, ATTEND_F64, 3, {rows, columns, H, 1}, {row_stride, 1, head_stride, 0}};
  return tensor;
}

/* ----------------------------------------------------------------------------------------- the notebook's cells -- */

typedef struct parameters {
  double omega_q[D][D], omega_k[D][D], omega_v[D][D];
  double beta_q[D], beta_k[D], beta_v[D];
} parameters;

/* beta + Omega x, for one column x or for all of them. */
static void project(double omega[D][D], double *beta, double *x, int columns, double *out) {
  const attend_tensor a = by_rows(omega[0], D, D), b = by_columns(x, D, columns), c = by_columns(out, D, columns);
  const attend_tensor bias = by_columns(beta, D, 1);
  const attend_matmul_options options = {.size = sizeof options, .bias = &bias};
  check(attend_matmul(1, &a, &b, 0, &c, &options), "attend_matmul (projection)");
}

static void one_query_at_a_time(double queries[N][D], double keys[N][D], double values[N][D]) {
  double all_x_prime[N][D];
  for (int n = 0; n < N; ++n) {
    /* query^T key, one 1 x 1 product for each key */
    double all_km_qn[N], attention[N];
    for (int m = 0; m < N; ++m) {
      const attend_tensor query = by_rows(queries[n], 1, D), key = by_columns(keys[m], D, 1);
      const attend_tensor dot_product = by_columns(&all_km_qn[m], 1, 1);
      check(attend_matmul(1, &query, &key, 0, &dot_product, NULL), "attend_matmul (dot product)");
    }

    const attend_tensor scores = by_columns(all_km_qn, N, 1), weights = by_columns(attention, N, 1);
    check(attend_softmax(&scores, &weights, NULL), "attend_softmax (one query)");
    printf("Attentions for output  %d\n", n);
    print_nested_list(attention);
    compare("attention of one query", attention, kTrueUnscaledAttention[n], N, 1);

    /* the sum of all values, weighted by the attention: a matrix times a column */
    const attend_tensor all_values = by_columns(values[0], D, N), x_prime = by_columns(all_x_prime[n], D, 1);
    check(attend_matmul(1, &all_values, &weights, 0, &x_prime, NULL), "attend_matmul (weighted sum)");
    compare("x_prime of one query", all_x_prime[n], kTrueUnscaled[n], D, 0);
  }
  for (int n = 0; n < N; ++n) {
    printf("x_prime_%d_calculated: ", n);
    print_matrix(all_x_prime[n], 1, D, D, 1);
    printf("x_prime_%d_true: ", n);
    print_matrix(kTrueUnscaled[n], 1, D, D, 1);
  }
}

static void softmax_cols(double queries[N][D], double keys[N][D]) {
  double all_km_qn[N][N], attention[N][N];
  const attend_tensor q = by_columns(queries[0], D, N), keys_transposed = by_rows(keys[0], N, D);
  const attend_tensor scores = by_columns(all_km_qn[0], N, N), weights = by_columns(attention[0], N, N);
  check(attend_matmul(1, &keys_transposed, &q, 0, &scores, NULL), "attend_matmul (scores)");
  check(attend_softmax(&scores, &weights, NULL), "attend_softmax (columns)");
  print_matrix(attention[0], N, N, 1, N);
  compare("softmax_cols", attention[0], kTrueUnscaledAttention[0], N * N, 1);
}

/* The whole mechanism in one call. scale = 1 is the unscaled form, 0 the default of 1 / sqrt(D). */
static void self_attention(double x[N][D], parameters *p, double scale, const double true_out[N][D],
                           const double true_attention[N][N]) {
  double x_prime[N][D], attention[N][N];
  const attend_tensor in = by_columns(x[0], D, N), out = by_columns(x_prime[0], D, N);
  const attend_tensor omega_q = by_rows(p->omega_q[0], D, D), beta_q = by_columns(p->beta_q, D, 1);
  const attend_tensor omega_k = by_rows(p->omega_k[0], D, D), beta_k = by_columns(p->beta_k, D, 1);
  const attend_tensor omega_v = by_rows(p->omega_v[0], D, D), beta_v = by_columns(p->beta_v, D, 1);
  const attend_self_attention_weights weights = {.size = sizeof weights,
                                                 .w_q = &omega_q,
                                                 .w_k = &omega_k,
                                                 .w_v = &omega_v,
                                                 .b_q = &beta_q,
                                                 .b_k = &beta_k,
                                                 .b_v = &beta_v};
  /* Without `scores` the attention matrix would never exist: the library works on it block by block. */
  const attend_tensor scores = by_columns(attention[0], N, N);
  const attend_attention_options options = {
      .size = sizeof options, .scale = scale, .scores = &scores, .scores_stage = ATTEND_SCORES_PROBABILITIES};
  check(attend_self_attention(&in, &weights, &out, NULL, &options), "attend_self_attention");
  print_matrix(x_prime[0], N, D, D, 1);
  printf("attention matrix, one column per output:\n");
  print_matrix(attention[0], N, N, 1, N);
  compare("self-attention", x_prime[0], true_out[0], N * D, 0);
  compare("attention matrix", attention[0], true_attention[0], N * N, 1);
}

/* The book's next step. Each head has its own parameters, one struct after the other, so the stride from head to
 * head is the size of that struct: nothing is repacked. omega_c takes the heads side by side, DH columns for each. */
static void multi_head_self_attention(double x[N][D]) {
  struct head {
    double omega_q[DH][D], omega_k[DH][D], omega_v[DH][D];
    double beta_q[DH], beta_k[DH], beta_v[DH];
  } heads[H];
  double omega_c[D][H * DH], x_prime[N][D];
  numpy_random random;
  numpy_seed(&random, 0);
  for (int h = 0; h < H; ++h) {
    numpy_normals(&random, heads[h].omega_q[0], DH * D);
    numpy_normals(&random, heads[h].omega_k[0], DH * D);
    numpy_normals(&random, heads[h].omega_v[0], DH * D);
    numpy_normals(&random, heads[h].beta_q, DH);
    numpy_normals(&random, heads[h].beta_k, DH);
    numpy_normals(&random, heads[h].beta_v, DH);
  }
  numpy_normals(&random, omega_c[0], D * H * DH);

  const int64_t stride = sizeof(struct head) / sizeof(double);
  const attend_tensor in = by_columns(x[0], D, N), out = by_columns(x_prime[0], D, N);
  const attend_tensor omega_q = per_head(heads[0].omega_q[0], DH, D, D, stride);
  const attend_tensor omega_k = per_head(heads[0].omega_k[0], DH, D, D, stride);
  const attend_tensor omega_v = per_head(heads[0].omega_v[0], DH, D, D, stride);
  const attend_tensor beta_q = per_head(heads[0].beta_q, DH, 1, 1, stride);
  const attend_tensor beta_k = per_head(heads[0].beta_k, DH, 1, 1, stride);
  const attend_tensor beta_v = per_head(heads[0].beta_v, DH, 1, 1, stride);
  const attend_tensor projection = per_head(omega_c[0], D, DH, H * DH, DH);
  const attend_self_attention_weights weights = {.size = sizeof weights,
                                                 .w_q = &omega_q,
                                                 .w_k = &omega_k,
                                                 .w_v = &omega_v,
                                                 .b_q = &beta_q,
                                                 .b_k = &beta_k,
                                                 .b_v = &beta_v,
                                                 .w_o = &projection};
  check(attend_self_attention(&in, &weights, &out, NULL, NULL), "attend_self_attention (multi-head)");
  print_matrix(x_prime[0], N, D, D, 1);
  compare("multi-head self-attention", x_prime[0], kTrueMultiHead[0], N * D, 0);
}

int main(void) {
  const uint32_t version = attend_version();
  printf("attend %u.%u.%u, f64, instruction set: %s\n", (unsigned)(version / 10000), (unsigned)(version / 100 % 100),
         (unsigned)(version % 100), attend_isa());

  numpy_random random;
  double all_x[N][D];
  numpy_seed(&random, 3);
  for (int n = 0; n < N; ++n) numpy_normals(&random, all_x[n], D);
  printf("\nall_x, drawn with NumPy's seed 3:\n");
  print_list_of_columns(all_x);
  compare("all_x", all_x[0], kTrueX[0], N * D, 0);

  parameters p;
  numpy_seed(&random, 0);
  numpy_normals(&random, p.omega_q[0], D * D);
  numpy_normals(&random, p.omega_k[0], D * D);
  numpy_normals(&random, p.omega_v[0], D * D);
  numpy_normals(&random, p.beta_q, D);
  numpy_normals(&random, p.beta_k, D);
  numpy_normals(&random, p.beta_v, D);

  printf("\nOne query at a time:\n");
  double all_queries[N][D], all_keys[N][D], all_values[N][D];
  for (int n = 0; n < N; ++n) {
    project(p.omega_q, p.beta_q, all_x[n], 1, all_queries[n]);
    project(p.omega_k, p.beta_k, all_x[n], 1, all_keys[n]);
    project(p.omega_v, p.beta_v, all_x[n], 1, all_values[n]);
  }
  one_query_at_a_time(all_queries, all_keys, all_values);

  /* From here on all_x is one matrix: its columns already lie one after the other. */
  printf("\nX:\n");
  print_matrix(all_x[0], D, N, 1, D);
  printf("\nsoftmax_cols(K^T Q), the attention matrix, one column per output:\n");
  softmax_cols(all_queries, all_keys);
  printf("\nself_attention(X, ...), one row per item:\n");
  self_attention(all_x, &p, 1, kTrueUnscaled, kTrueUnscaledAttention);
  printf("\nscaled_dot_product_self_attention(X, ...), scaled by 1/sqrt(D) = 1/2\n");
  printf("(the notebook's own cell discards its division by 2 and prints the unscaled result again):\n");
  self_attention(all_x, &p, 0, kTrueScaled, kTrueScaledAttention);
  printf("\nMulti-head self-attention, %d heads of %d dimensions, with an output projection:\n", H, DH);
  multi_head_self_attention(all_x);

  if (differences > 0) {
    fprintf(stderr, "\nnotebook: %d numbers differ\n", differences);
    return 1;
  }
  printf("\nEvery printed digit agrees with the notebook (with NumPy, where the notebook shows none).\n");
  return 0;
}
