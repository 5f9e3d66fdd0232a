#include "dispatch/registry.hpp"

#include <pthread.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "dispatch/cpu_features.hpp"
#include "drivers/cache.hpp"

#define ATTEND_ISA(table) extern "C" const attend::KernelTable attend_kernels_##table;
#include "attend_isa_list.inc"
#undef ATTEND_ISA

namespace attend {
namespace {

// Every table built into this library, best first: the order of cmake/AttendIsa.cmake. The units of a set of kernels are
// beside each other, of one name.
const KernelTable *const kBuilt[] = {
#define ATTEND_ISA(table) &attend_kernels_##table,
#include "attend_isa_list.inc"
#undef ATTEND_ISA
};
constexpr int kBuiltCount = static_cast<int>(sizeof kBuilt / sizeof kBuilt[0]);

// The same, made once: one table for each name, without holes.
struct Tables {
  KernelTable of[kBuiltCount];
  int count;
} g_tables;
pthread_once_t g_made = PTHREAD_ONCE_INIT;

void make_tables() {
  KernelTable *table = nullptr;
  for (int i = 0; i < kBuiltCount; ++i) {
    if (table != nullptr && std::strcmp(kBuilt[i]->name, table->name) == 0) {
      fill_holes(table, *kBuilt[i]);
    } else {
      table = &g_tables.of[g_tables.count++];
      *table = *kBuilt[i];
    }
  }
  for (int i = g_tables.count - 2; i >= 0; --i) fill_holes(&g_tables.of[i], g_tables.of[i + 1]);
}

const Tables &tables() {
  pthread_once(&g_made, make_tables);
  return g_tables;
}

template <class T>
void fill_holes(KernelsOf<T> *kernels, const KernelsOf<T> &lower) {
  if (kernels->matmul == nullptr) kernels->turned_columns = lower.turned_columns;
  if (kernels->attention == nullptr) {
    kernels->attention_lanes = lower.attention_lanes;
    kernels->attention_rows = lower.attention_rows;
    kernels->key_span = lower.key_span;
  }
#define ATTEND_KERNEL(name, argument, unit) \
  if (kernels->name == nullptr) kernels->name = lower.name;
#include "kernels/kernels.def"
#undef ATTEND_KERNEL
}

// Constant-initialised, filled at the first call; threads that race there store the same value.
std::atomic<const KernelTable *> g_active{nullptr};

// The best available table that is not above the one ATTEND_ISA names.
const KernelTable *choose() {
  const uint64_t features = cpu_features();
  const Tables &all = tables();
  int first = 0;
  if (const char *limit = std::getenv("ATTEND_ISA")) {
    for (int i = 0; i < all.count; ++i) {
      if (std::strcmp(all.of[i].name, limit) == 0) first = i;
    }
  }
  for (int i = first; i < all.count - 1; ++i) {
    if ((all.of[i].required & ~features) == 0) return &all.of[i];
  }
  return &all.of[all.count - 1];  // generic: runs everywhere
}

}  // namespace

void fill_holes(KernelTable *table, const KernelTable &lower) {
  fill_holes(&table->f32, lower.f32);
  fill_holes(&table->f64, lower.f64);
  if (table->convert == nullptr) table->convert = lower.convert;
  if (table->integers == nullptr) table->integers = lower.integers;
  if (table->scale == nullptr) table->scale = lower.scale;
  if (table->dots == nullptr) table->dots = lower.dots;
}

const KernelTable *active_kernels() {
  const KernelTable *table = g_active.load(std::memory_order_acquire);
  if (table == nullptr) {
    set_active_kernels(nullptr);
    table = g_active.load(std::memory_order_acquire);
  }
  return table;
}

const KernelTable *available_kernels(int index) {
  const uint64_t features = cpu_features();
  const Tables &all = tables();
  for (int i = 0; i < all.count; ++i) {
    if ((all.of[i].required & ~features) == 0 && index-- == 0) return &all.of[i];
  }
  return nullptr;
}

void set_active_kernels(const KernelTable *table) {
  caches();  // found before any kernel runs
  g_active.store(table != nullptr ? table : choose(), std::memory_order_release);
}

const KernelTable *find_kernels(const char *name) {
  for (int i = 0; const KernelTable *table = available_kernels(i); ++i) {
    if (std::strcmp(table->name, name) == 0) return table;
  }
  return nullptr;
}

}  // namespace attend
