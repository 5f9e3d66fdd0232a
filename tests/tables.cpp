#include "tables.hpp"

extern "C" const attend::KernelTable attend_kernels_odd_tiles_attention_f32, attend_kernels_odd_tiles_attention_f64,
    attend_kernels_odd_tiles_products, attend_kernels_odd_tiles_columns, attend_kernels_short_spans_attention_f32,
    attend_kernels_short_spans_attention_f64;

namespace {

attend::KernelTable joined(std::initializer_list<const attend::KernelTable *> units) {
  attend::KernelTable table = **units.begin();
  for (const attend::KernelTable *unit : units) attend::fill_holes(&table, *unit);
  return table;
}

}  // namespace

const attend::KernelTable &attend::test::odd_tiles() {
  static const KernelTable table =
      joined({&attend_kernels_odd_tiles_attention_f32, &attend_kernels_odd_tiles_attention_f64,
              &attend_kernels_odd_tiles_products, &attend_kernels_odd_tiles_columns});
  return table;
}

const attend::KernelTable &attend::test::short_spans() {
  static const KernelTable table =
      joined({&attend_kernels_short_spans_attention_f32, &attend_kernels_short_spans_attention_f64, &odd_tiles()});
  return table;
}
