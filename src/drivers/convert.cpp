#include "drivers/convert.hpp"

#include <algorithm>
#include <cmath>

namespace attend {
namespace {

// Elements of a task, and of the whole below which a second thread does not pay.
constexpr int64_t kTaskElements = 1 << 14;

struct Range {
  int64_t begin, end;
};
// What of a dimension of x a cell of the scale stands for.
Range range_of(int64_t cell, int64_t cells, int64_t extent) {
  return cells == 1 ? Range{0, extent} : Range{cell, cell + 1};
}

// The largest magnitude among rows and columns of one matrix; NaN does not count.
float largest_of(const KernelTable &kernels, const StoredMatrix &x, int64_t rows, int64_t columns) {
  constexpr int64_t kMost = 256;
  float buffer[kMost], most = 0;
  // Along what is contiguous.
  const bool by_rows = columns == 1 || (rows != 1 && x.row_stride == 1);
  const int64_t lines = by_rows ? columns : rows, length = by_rows ? rows : columns;
  for (int64_t l = 0; l < lines; ++l) {
    for (int64_t i = 0; i < length; i += kMost) {
      const int64_t count = std::min(kMost, length - i), row = by_rows ? i : l, column = by_rows ? l : i;
      const StoredMatrix from = {element_of(x, row, column), by_rows ? x.row_stride : x.col_stride, 0, x.type};
      kernels.convert({count, 1, from, {buffer, 1, 0, Dtype::f32}, {}});
      for (int64_t n = 0; n < count; ++n) most = std::max(most, std::isnan(buffer[n]) ? 0.0f : std::fabs(buffer[n]));
    }
  }
  return most;
}

void compute_scale(const KernelTable &kernels, const Convert &p, int64_t cell) {
  const auto &cells = p.scale.shape, &extent = p.x.shape;
  const int64_t i = cell % cells[0], j = cell / cells[0] % cells[1], h = cell / cells[0] / cells[1] % cells[2],
                b = cell / cells[0] / cells[1] / cells[2];
  const Range rows = range_of(i, cells[0], extent[0]), columns = range_of(j, cells[1], extent[1]),
              heads = range_of(h, cells[2], extent[2]), batch = range_of(b, cells[3], extent[3]);
  float most = 0;
  for (int64_t n = batch.begin; n < batch.end; ++n) {
    for (int64_t m = heads.begin; m < heads.end; ++m) {
      most = std::max(most, largest_of(kernels, p.x.matrix(rows.begin, columns.begin, m, n), rows.end - rows.begin,
                                       columns.end - columns.begin));
    }
  }
  *p.scale.at<float>(i, j, h, b) = scale_to(p.y.dtype, most);
}

}  // namespace

void convert(const KernelTable &kernels, const Convert &p, const Execution &execution) {
  const int64_t slices = p.x.heads() * p.x.batch();
  const double elements = static_cast<double>(p.x.count);
  int threads = execution.usable_threads();
  if (elements < static_cast<double>(kTaskElements * threads))
    threads = std::max(1, static_cast<int>(elements / kTaskElements));
  if (p.computes_scale) {
    const int64_t of_cell = std::max<int64_t>(1, p.x.count / p.scale.count);
    const int64_t together = std::max<int64_t>(1, kTaskElements / of_cell);
    parallel_for(execution.executor, threads, (p.scale.count + together - 1) / together, [&](int64_t task, int) {
      const int64_t end = std::min(p.scale.count, (task + 1) * together);
      for (int64_t cell = task * together; cell < end; ++cell) compute_scale(kernels, p, cell);
    });
  }
  // Blocks of whole columns, or of rows where columns are long.
  const int64_t columns = std::clamp<int64_t>(kTaskElements / p.x.rows(), 1, p.x.columns());
  const int64_t rows = std::min(p.x.rows(), kTaskElements);
  const int64_t across = (p.x.columns() + columns - 1) / columns, down = (p.x.rows() + rows - 1) / rows;
  parallel_for(execution.executor, threads, across * down * slices, [&](int64_t task, int) {
    const int64_t i = task % down * rows, j = task / down % across * columns, slice = task / down / across;
    const int64_t head = slice % p.x.heads(), batch = slice / p.x.heads();
    MatrixRef<const float> scale = {};
    if (p.scale) scale = {p.scale.at<const float>(i, j, head, batch), p.scale.stride[0], p.scale.stride[1]};
    kernels.convert({std::min(rows, p.x.rows() - i), std::min(columns, p.x.columns() - j),
                     p.x.matrix(i, j, head, batch), p.y.matrix(i, j, head, batch), scale});
  });
}

}  // namespace attend
