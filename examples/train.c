/* The notebook's self-attention, fitted by gradient descent.
 *
 * Each sequence holds N items of D random features; every item of the output is to be the whole item whose first feature
 * is largest. So queries and keys must learn to look at the first feature, and values to pass items through:
 *
 *     Q = b_q + W_q X,  K = b_k + W_k X,  V = b_v + W_v X,  O = V softmax(K^T Q / sqrt(D)),  L = mean of (O - target)^2
 *
 * attend_attention_backward gives the gradients of Q, K and V; those of a projection are products: d_W = d_Q X^T and d_b =
 * the sum of d_Q's columns. Adam (Kingma and Ba, arXiv 1412.6980) takes the steps. The program ends with 1 if the loss has
 * not come down to a tenth.
 *
 * SPDX-License-Identifier: BSD-3-Clause
 */
#include <attend/attend.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "numpy_random.h"

enum { D = 4, N = 8, B = 64, ITEMS = N * B, STEPS = 400 };

/* One projection, its gradients, and Adam's running means of these and of their squares. */
typedef struct layer {
  float w[D][D], b[D];
  float d_w[D][D], d_b[D];
  float mean[D * D + D], square[D * D + D];
} layer;

static float x[ITEMS][D], target[ITEMS][D];                        /* [sequence][item][feature] */
static float q[ITEMS][D], k[ITEMS][D], v[ITEMS][D], out[ITEMS][D]; /* computed from x */
static float d_q[ITEMS][D], d_k[ITEMS][D], d_v[ITEMS][D], d_out[ITEMS][D], lse[ITEMS];

static void check(attend_status status) {
  if (status == ATTEND_OK) return;
  fprintf(stderr, "train: %s: %s\n", attend_status_argument(status), attend_status_string(status));
  exit(1);
}

/* All items side by side, as projections see them: (D, ITEMS); and its transpose. */
static attend_tensor items(float (*data)[D]) {
  attend_tensor t = {data, ATTEND_F32, 2, {D, ITEMS, 0, 0}, {1, D, 0, 0}};
  return t;
}
static attend_tensor turned(float (*data)[D]) {
  attend_tensor t = {data, ATTEND_F32, 2, {ITEMS, D, 0, 0}, {D, 1, 0, 0}};
  return t;
}
/* Sequence by sequence, as attention does: (rows, N, 1, B). */
static attend_tensor sequences(void *data, int64_t rows) {
  attend_tensor t = {data, ATTEND_F32, 4, {rows, N, 1, B}, {1, rows, 0, rows * N}};
  return t;
}
/* A weight [out][in], which is not reversed. */
static attend_tensor weight(float (*w)[D]) {
  attend_tensor t = {w, ATTEND_F32, 2, {D, D, 0, 0}, {D, 1, 0, 0}};
  return t;
}

static void project(layer *l, float (*to)[D]) {
  const attend_tensor w = weight(l->w), in = items(x), y = items(to), b = {l->b, ATTEND_F32, 1, {D}, {1}};
  attend_matmul_options options = ATTEND_MATMUL_OPTIONS_INIT;
  options.bias = &b;
  check(attend_matmul(1, &w, &in, 0, &y, &options));
}
static void project_backward(layer *l, float (*d_y)[D]) {
  static float ones[ITEMS];
  for (int i = 0; i < ITEMS; ++i) ones[i] = 1;
  const attend_tensor dy = items(d_y), xt = turned(x), dw = weight(l->d_w), one = {ones, ATTEND_F32, 1, {ITEMS}, {1}},
                      db = {l->d_b, ATTEND_F32, 1, {D}, {1}};
  check(attend_matmul(1, &dy, &xt, 0, &dw, NULL));
  check(attend_matmul(1, &dy, &one, 0, &db, NULL));
}

static void adam(layer *l, int step) {
  float *const parameters[] = {&l->w[0][0], l->b}, *const gradients[] = {&l->d_w[0][0], l->d_b};
  const double rate = 0.02, of_mean = 1 - pow(0.9, step), of_square = 1 - pow(0.999, step);
  for (int part = 0, at = 0; part < 2; ++part) {
    for (int i = 0; i < (part == 0 ? D * D : D); ++i, ++at) {
      const float g = gradients[part][i];
      l->mean[at] += 0.1f * (g - l->mean[at]);
      l->square[at] += 0.001f * (g * g - l->square[at]);
      parameters[part][i] -= (float)(rate * (l->mean[at] / of_mean) / (sqrt(l->square[at] / of_square) + 1e-8));
    }
  }
}

/* Fresh sequences, and what is wanted of them. */
static void draw(numpy_random *random) {
  for (int s = 0; s < B; ++s) {
    int largest = s * N;
    for (int i = s * N; i < (s + 1) * N; ++i) {
      for (int f = 0; f < D; ++f) x[i][f] = (float)numpy_normal(random);
      if (x[i][0] > x[largest][0]) largest = i;
    }
    for (int i = s * N; i < (s + 1) * N; ++i) {
      for (int f = 0; f < D; ++f) target[i][f] = x[largest][f];
    }
  }
}

/* The mean of (out - target)^2, and its gradient in d_out. */
static double loss(void) {
  double sum = 0;
  for (int i = 0; i < ITEMS; ++i) {
    for (int f = 0; f < D; ++f) {
      const float difference = out[i][f] - target[i][f];
      sum += (double)difference * difference;
      d_out[i][f] = 2 * difference / (ITEMS * D);
    }
  }
  return sum / (ITEMS * D);
}

int main(void) {
  static layer of_q, of_k, of_v;
  layer *const layers[] = {&of_q, &of_k, &of_v};
  float(*const projected[])[D] = {q, k, v}, (*const gradients[])[D] = {d_q, d_k, d_v};
  numpy_random random;
  numpy_seed(&random, 0);
  for (int l = 0; l < 3; ++l) {
    double start[D * D];
    numpy_normals(&random, start, D * D);
    for (int i = 0; i < D * D; ++i) layers[l]->w[i / D][i % D] = 0.5f * (float)start[i];
  }
  const attend_tensor tq = sequences(q, D), tk = sequences(k, D), tv = sequences(v, D), to = sequences(out, D),
                      tl = sequences(lse, 1), dq = sequences(d_q, D), dk = sequences(d_k, D), dv = sequences(d_v, D),
                      d_o = sequences(d_out, D);
  attend_attention_options options = ATTEND_ATTENTION_OPTIONS_INIT;
  options.lse = &tl; /* written by the forward call, read by the backward one */
  double first = 0, last = 0;
  for (int step = 1; step <= STEPS; ++step) {
    draw(&random);
    for (int l = 0; l < 3; ++l) project(layers[l], projected[l]);
    check(attend_attention(&tq, &tk, &tv, &to, &options));
    last = loss();
    if (step == 1) first = last;
    if (step == 1 || step % 50 == 0) printf("step %3d   loss %.4f\n", step, last);
    check(attend_attention_backward(&tq, &tk, &tv, &to, &d_o, &dq, &dk, &dv, NULL, &options));
    for (int l = 0; l < 3; ++l) {
      project_backward(layers[l], gradients[l]);
      adam(layers[l], step);
    }
  }
  printf("W_v, which has learnt to pass items through:\n");
  for (int i = 0; i < D; ++i) {
    for (int j = 0; j < D; ++j) printf("%8.3f", of_v.w[i][j]);
    printf("\n");
  }
  if (last < first / 10) return 0;
  fprintf(stderr, "train: the loss is still %.4f\n", last);
  return 1;
}
