// The rows of attend_bench_against.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_BENCH_AGAINST_ROWS_HPP
#define ATTEND_BENCH_AGAINST_ROWS_HPP

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace attend::bench::against {

class Problem;

struct NamedProblem {
  std::string name;  // "<group>/<what>"
  std::function<std::unique_ptr<Problem>()> make;
};

std::vector<NamedProblem> all_problems(int32_t threads);

}  // namespace attend::bench::against

#endif  // ATTEND_BENCH_AGAINST_ROWS_HPP
