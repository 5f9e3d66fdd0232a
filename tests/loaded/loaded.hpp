// attend as programs see it that are not linked to it: opened while they run, its functions found by name.
#pragma once

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "attend/attend.h"

// A function of the library behind a handle.
template <class Function>
Function *find(void *handle, const char *name) {
  Function *const function = reinterpret_cast<Function *>(dlsym(handle, name));
  if (function == nullptr) std::printf("%s\n", dlerror()), std::exit(1);
  return function;
}

struct Library {
  void *handle;
  decltype(attend_matmul) *matmul;
  decltype(attend_softmax) *softmax;
  decltype(attend_attention) *attention;

  Library(const char *path, int flags) : handle(dlopen(path, flags)) {
    if (handle == nullptr) std::printf("%s\n", dlerror()), std::exit(1);
    matmul = find<decltype(attend_matmul)>(handle, "attend_matmul");
    softmax = find<decltype(attend_softmax)>(handle, "attend_softmax");
    attention = find<decltype(attend_attention)>(handle, "attend_attention");
  }
  // The functions stay callable: the library is linked with -z nodelete.
  bool close() const { return dlclose(handle) == 0; }
};

// O = attention(X, X, X), its product X^T O, and the softmax of that, all on several threads if asked for; empty if a
// call failed.
inline std::vector<float> compute(const Library &library, int32_t threads) {
  constexpr int64_t kFeatures = 64, kItems = 300, kHeads = 2;
  constexpr int64_t kInput = kFeatures * kItems * kHeads, kProduct = kItems * kItems * kHeads;
  std::vector<float> x(kInput), results(kInput + 2 * kProduct);
  uint32_t state = 1;
  for (float &value : x) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(state >> 16) / 65536 - 0.5f;
  }
  float *const out = results.data();
  const attend_tensor tx = {x.data(), ATTEND_F32, 3, {kFeatures, kItems, kHeads}, {1, kFeatures, kFeatures * kItems}},
                      transposed = {
                          x.data(), ATTEND_F32, 3, {kItems, kFeatures, kHeads}, {kFeatures, 1, kFeatures * kItems}};
  attend_tensor to = tx,
                product = {out + kInput, ATTEND_F32, 3, {kItems, kItems, kHeads}, {1, kItems, kItems * kItems}};
  to.data = out;
  attend_tensor softmax = product;
  softmax.data = out + kInput + kProduct;

  attend_attention_options attention_options = {};
  attention_options.size = sizeof attention_options;
  attention_options.threads = threads;
  attend_matmul_options matmul_options = {};
  matmul_options.size = sizeof matmul_options;
  matmul_options.threads = threads;
  attend_softmax_options softmax_options = {};
  softmax_options.size = sizeof softmax_options;
  softmax_options.threads = threads;
  if (library.attention(&tx, &tx, &tx, &to, &attention_options) != ATTEND_OK ||
      library.matmul(1, &transposed, &to, 0, &product, &matmul_options) != ATTEND_OK ||
      library.softmax(&product, &softmax, &softmax_options) != ATTEND_OK) {
    results.clear();
  }
  return results;
}

// 0, or 1 and a message.
inline int verdict(bool good, const char *what) {
  std::printf("%s: %s\n", what, good ? "passed" : "FAILED");
  return good ? 0 : 1;
}

inline bool is_long() { return std::getenv("ATTEND_TEST_LONG") != nullptr; }
