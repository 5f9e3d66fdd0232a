// The kernel tables: those of this CPU, and the tests' own.
#pragma once

#include <functional>

#include "dispatch/registry.hpp"
#include "support.hpp"

namespace attend::test {

// Scalars in tiles of odd shapes, and vectors of four floats in such tiles with spans of 512 keys.
const KernelTable &odd_tiles(), &short_spans();

// Runs f for every table, the scalar one with odd tiles too. Bits must agree within a `group`: all tables with FMA are
// one.
inline void for_each_table(const std::function<void(const std::string &table, const std::string &group)> &f) {
  const auto run = [&f](const KernelTable *table, bool fma) {
    set_active_kernels(table);
    const std::string name = table->name;
    INFO(name);
    f(name, fma ? "FMA" : name);
  };
  for (int i = 0; const KernelTable *table = available_kernels(i); ++i) run(table, (table->required & kFma) != 0);
  run(&odd_tiles(), true);
  set_active_kernels(nullptr);
}

}  // namespace attend::test
