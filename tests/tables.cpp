#include "tables.hpp"

#define ATTEND_UNITS_OF(name)                                                                                        \
  extern "C" const attend::KernelTable attend_kernels_##name##_attention_f32, attend_kernels_##name##_attention_f64, \
      attend_kernels_##name##_products, attend_kernels_##name##_columns;                                             \
  const attend::KernelTable &attend::test::name() {                                                                  \
    static const KernelTable table =                                                                                 \
        joined({&attend_kernels_##name##_attention_f32, &attend_kernels_##name##_attention_f64,                      \
                &attend_kernels_##name##_products, &attend_kernels_##name##_columns});                               \
    return table;                                                                                                    \
  }

namespace {

attend::KernelTable joined(std::initializer_list<const attend::KernelTable *> units) {
  attend::KernelTable table = **units.begin();
  for (const attend::KernelTable *unit : units) attend::fill_holes(&table, *unit);
  return table;
}

}  // namespace

ATTEND_UNITS_OF(odd_tiles)
ATTEND_UNITS_OF(short_spans)
