/* Serving in small: three prompts of different lengths in one call, then a token a step for each, over one cache of
 * bf16 pages. The model is one layer with random weights: embedding, attention with rotary positions, scores of words.
 *
 * The loop at the end is what a server does at each step; `step` is the model. The program compares the last step with one
 * call over each whole text, whose keys lie in one piece, and ends with 1 if a bit differs.
 *
 * SPDX-License-Identifier: BSD-3-Clause
 */
#include <attend/attend.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { B = 3, STEPS = 24, WORDS = 50, E = 64, H = 4, HKV = 2, D = 16, PAGE = 8, PAGES = 32, ROW = 8, MOST = 64 };

static float embedding[WORDS][E], w_q[H * D][E], w_k[HKV * D][E], w_v[HKV * D][E], w_out[WORDS][H * D];
static float cosines[MOST][D / 2], sines[MOST][D / 2];
static uint16_t k_pool[PAGES][HKV][PAGE][D], v_pool[PAGES][HKV][PAGE][D]; /* bf16 */
static int32_t table[B][ROW];
static int64_t lengths[B];

static void check(attend_status status) {
  if (status == ATTEND_OK) return;
  fprintf(stderr, "decode: %s: %s\n", attend_status_argument(status), attend_status_string(status));
  exit(1);
}
static attend_tensor tensor(void *data, uint32_t type, int64_t rows, int64_t columns, int64_t heads, int64_t row,
                            int64_t column, int64_t head) {
  attend_tensor t = {data, type, 3, {rows, columns, heads, 1}, {row, column, head, 0}};
  return t;
}
/* y[items][rows] = w[rows][inputs] applied to each item of x[items][inputs] */
static void project(float *w, float *x, float *y, int rows, int inputs, int items) {
  attend_tensor tw = tensor(w, ATTEND_F32, rows, inputs, 1, inputs, 1, 0),
                tx = tensor(x, ATTEND_F32, inputs, items, 1, 1, inputs, 0),
                ty = tensor(y, ATTEND_F32, rows, items, 1, 1, rows, 0);
  check(attend_matmul(1, &tw, &tx, 0, &ty, NULL));
}

/* The new words of all sequences, packed: their keys go into the cache, and `next` is the likeliest word behind each
 * sequence's last one. */
static void step(const int *words, const int64_t *starts, float *attended, int *next) {
  static float x[B * MOST][E], q[B * MOST][H * D], k[B * MOST][HKV * D], v[B * MOST][HKV * D], scores[WORDS];
  const int n = (int)starts[B];
  for (int i = 0; i < n; ++i) memcpy(x[i], embedding[words[i]], sizeof x[i]);
  project(w_q[0], x[0], q[0], H * D, E, n);
  project(w_k[0], x[0], k[0], HKV * D, E, n);
  project(w_v[0], x[0], v[0], HKV * D, E, n);

  attend_tensor tq = tensor(q, ATTEND_F32, D, n, H, 1, H * D, D), tk = tensor(k, ATTEND_F32, D, n, HKV, 1, HKV * D, D),
                tv = tensor(v, ATTEND_F32, D, n, HKV, 1, HKV * D, D),
                to = tensor(attended, ATTEND_F32, D, n, H, 1, H * D, D),
                cos_table = tensor(cosines, ATTEND_F32, D / 2, MOST, 1, 1, D / 2, 0),
                sin_table = tensor(sines, ATTEND_F32, D / 2, MOST, 1, 1, D / 2, 0),
                pages = tensor(table, ATTEND_I32, ROW, B, 1, 1, ROW, 0),
                k_cache = {k_pool, ATTEND_BF16, 4, {D, PAGE, HKV, PAGES}, {1, D, D * PAGE, D * PAGE * HKV}},
                v_cache = k_cache;
  v_cache.data = v_pool;
  attend_rotary_options turn = ATTEND_ROTARY_OPTIONS_INIT;
  turn.sequences = B, turn.starts = starts, turn.offsets = lengths;
  check(attend_rotary(&tq, &cos_table, &sin_table, &tq, &turn));
  attend_kv_append_options append = ATTEND_KV_APPEND_OPTIONS_INIT;
  append.sequences = B, append.starts = starts, append.offsets = lengths, append.pages = &pages;
  append.cos = &cos_table, append.sin = &sin_table;
  check(attend_kv_append(&tk, &tv, &k_cache, &v_cache, &append));
  for (int b = 0; b < B; ++b) lengths[b] += starts[b + 1] - starts[b];
  attend_attention_options attend = ATTEND_ATTENTION_OPTIONS_INIT;
  attend.flags = ATTEND_CAUSAL_BOTTOM_RIGHT;
  attend.sequences = B, attend.query_starts = starts, attend.pages = &pages, attend.kv_lengths = lengths;
  check(attend_attention(&tq, &k_cache, &v_cache, &to, &attend));

  for (int b = 0; b < B; ++b) {
    project(w_out[0], attended + (starts[b + 1] - 1) * H * D, scores, WORDS, H * D, 1);
    next[b] = 0;
    for (int w = 1; w < WORDS; ++w) next[b] = scores[w] > scores[next[b]] ? w : next[b];
  }
}

static void fill(float *x, int count, float size) {
  static uint32_t state = 1;
  for (int i = 0; i < count; ++i) {
    state = state * 1664525u + 1013904223u;
    x[i] = size * ((float)(state >> 8) / 8388608.0f - 1);
  }
}

int main(void) {
  fill(embedding[0], WORDS * E, 2), fill(w_q[0], H * D * E, 0.3f), fill(w_k[0], HKV * D * E, 0.3f);
  fill(w_v[0], HKV * D * E, 0.3f), fill(w_out[0], WORDS * H * D, 1);
  for (int p = 0; p < MOST; ++p) {
    for (int i = 0; i < D / 2; ++i) {
      const double angle = p * pow(10000.0, -2.0 * i / (double)D);
      cosines[p][i] = (float)cos(angle), sines[p][i] = (float)sin(angle);
    }
  }
  for (int i = 0; i < B * ROW; ++i) table[i % B][i / B] = (i * 7) % PAGES; /* any pages, no two the same */

  /* The texts: their prompts, then what the model says. */
  static int text[B][MOST];
  static float attended[B * MOST][H * D];
  int64_t written[B] = {3, 17, 9}, starts[B + 1] = {0};
  for (int b = 0; b < B; ++b) {
    for (int i = 0; i < written[b]; ++i) text[b][i] = (7 * i + 11 * b) % WORDS;
  }

  /* The decode loop: the first step takes the prompts, the others a word of each. */
  for (int s = 0; s < STEPS; ++s) {
    int words[B * MOST], next[B];
    for (int b = 0; b < B; ++b) {
      const int64_t count = written[b] - lengths[b];
      for (int64_t i = 0; i < count; ++i) words[starts[b] + i] = text[b][lengths[b] + i];
      starts[b + 1] = starts[b] + count;
    }
    step(words, starts, attended[0], next);
    for (int b = 0; b < B; ++b) text[b][written[b]++] = next[b];
  }
  for (int b = 0; b < B; ++b) {
    printf("text %d:", b);
    for (int64_t i = 0; i < written[b]; ++i) printf(" %d", text[b][i]);
    printf("\n");
  }

  /* All texts but their last words at once, into an empty cache: the same bits for the last of each. */
  static float whole[B * MOST][H * D];
  int words[B * MOST], next[B];
  for (int b = 0; b < B; ++b) {
    lengths[b] = 0;
    starts[b + 1] = starts[b] + written[b] - 1;
    for (int64_t i = 0; i < written[b] - 1; ++i) words[starts[b] + i] = text[b][i];
  }
  step(words, starts, whole[0], next);
  for (int b = 0; b < B; ++b) {
    if (memcmp(attended[b], whole[starts[b + 1] - 1], sizeof attended[b]) == 0 && next[b] == text[b][written[b] - 1])
      continue;
    fprintf(stderr, "decode: step by step text %d is not what one call gives\n", b);
    return 1;
  }
  printf("(step by step and at once: the same bits)\n");
  return 0;
}
