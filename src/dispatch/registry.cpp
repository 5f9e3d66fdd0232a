#include "dispatch/registry.hpp"

#include <pthread.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "dispatch/cpu_features.hpp"

#define ATTEND_ISA(isa) extern "C" const attend::KernelTable attend_kernels_##isa;
#include "attend_isa_list.inc"
#undef ATTEND_ISA

namespace attend {
namespace {

// Every table built into this library, best first: the order of cmake/AttendIsa.cmake.
const KernelTable *const kBuilt[] = {
#define ATTEND_ISA(isa) &attend_kernels_##isa,
#include "attend_isa_list.inc"
#undef ATTEND_ISA
};
constexpr int kTableCount = static_cast<int>(sizeof kBuilt / sizeof kBuilt[0]);

// The same without holes, made once.
KernelTable g_tables[kTableCount];
pthread_once_t g_made = PTHREAD_ONCE_INIT;

void make_tables() {
  for (int i = kTableCount - 1; i >= 0; --i) {
    g_tables[i] = *kBuilt[i];
    if (i + 1 < kTableCount) fill_holes(&g_tables[i], g_tables[i + 1]);
  }
}

const KernelTable *tables() {
  pthread_once(&g_made, make_tables);
  return g_tables;
}

template <class T>
void fill_holes(KernelsOf<T> *kernels, const KernelsOf<T> &lower) {
  if (kernels->attention == nullptr) {
    kernels->attention_lanes = lower.attention_lanes;
    kernels->attention_rows = lower.attention_rows;
    kernels->key_span = lower.key_span;
  }
#define ATTEND_KERNEL(name, argument) \
  if (kernels->name == nullptr) kernels->name = lower.name;
#include "kernels/kernels.def"
#undef ATTEND_KERNEL
}

// Constant-initialised, filled at the first call; threads that race there store the same value.
std::atomic<const KernelTable *> g_active{nullptr};

// The best available table that is not above the one ATTEND_ISA names.
const KernelTable *choose() {
  const uint64_t features = cpu_features();
  int first = 0;
  if (const char *limit = std::getenv("ATTEND_ISA")) {
    for (int i = 0; i < kTableCount; ++i) {
      if (std::strcmp(tables()[i].name, limit) == 0) first = i;
    }
  }
  for (int i = first; i < kTableCount - 1; ++i) {
    if ((tables()[i].required & ~features) == 0) return &tables()[i];
  }
  return &tables()[kTableCount - 1];  // generic: runs everywhere
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
    table = choose();
    g_active.store(table, std::memory_order_release);
  }
  return table;
}

const KernelTable *available_kernels(int index) {
  const uint64_t features = cpu_features();
  for (int i = 0; i < kTableCount; ++i) {
    if ((tables()[i].required & ~features) == 0 && index-- == 0) return &tables()[i];
  }
  return nullptr;
}

void set_active_kernels(const KernelTable *table) {
  g_active.store(table != nullptr ? table : choose(), std::memory_order_release);
}

const KernelTable *find_kernels(const char *name) {
  for (int i = 0; const KernelTable *table = available_kernels(i); ++i) {
    if (std::strcmp(table->name, name) == 0) return table;
  }
  return nullptr;
}

}  // namespace attend
