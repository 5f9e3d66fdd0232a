// attend/attend.hpp: workspaces, executors, the settings of the library, and errors, as exceptions and as statuses.
#include <atomic>
#include <attend/attend.hpp>
#include <thread>

#include "hpp/results.hpp"
#include "hpp/statuses.hpp"

using namespace attend::test;
using attend::columns;
using attend::extents;
using attend::tensor;

TEST_CASE("workspaces: as much as the C call says, and enough") {
  std::vector<float> x(300 * 64, 1), out(300 * 64);
  const tensor<float> null(nullptr, {300, 64});
  auto options = attend::attention_options().threads(2);
  const uint64_t bytes = attend::attention_workspace(null, null, null, null, options);
  const attend_tensor t = {nullptr, ATTEND_F32, 2, {64, 300}, {1, 64}};
  attend_attention_options o = ATTEND_ATTENTION_OPTIONS_INIT;
  o.threads = 2;
  uint64_t wanted = 0;
  REQUIRE(ok(attend_attention_workspace(&t, &t, &t, &t, &o, &wanted)));
  CHECK(bytes == wanted);
  std::vector<char> workspace(bytes);
  const tensor q(x, {300, 64});
  attend::attention(q, q, q, tensor(out, {300, 64}), options.workspace(workspace));
  CHECK(same_bits(attend::attention(q, q, q), out));
  const Thrown small = thrown([&] { attend::attention(q, q, q, options.workspace(workspace.data(), 8)); });
  CHECK(small.reason == ATTEND_WORKSPACE_TOO_SMALL);
  CHECK(small.argument == "options.workspace_size");

  const tensor<double> a(nullptr, {100, 100});
  const attend_tensor c = {nullptr, ATTEND_F64, 2, {100, 100}, {1, 100}};
  REQUIRE(ok(attend_matmul_workspace(1, &c, &c, 0, &c, nullptr, &wanted)));
  CHECK(attend::matmul_workspace(a, a, a) == wanted);
  REQUIRE(ok(attend_softmax_workspace(&c, &c, nullptr, &wanted)));
  CHECK(attend::softmax_workspace(a, a) == wanted);
}

TEST_CASE("executor: a callable, for one call and for all") {
  const std::vector<float> x = normals<float>(400 * 64, 1);
  const tensor q(x, {400, 64});
  std::atomic<int> runs{0}, tasks_done{0};
  const attend::executor executor(
      [&](int32_t tasks, attend::task task) {
        ++runs;
        std::vector<std::thread> threads;
        for (int32_t i = 0; i < tasks; ++i) {
          threads.emplace_back([task, i, &tasks_done] {
            task(i);
            ++tasks_done;
          });
        }
        for (std::thread &t : threads) t.join();
      },
      3);
  const auto alone = attend::attention(q, q, q, attend::attention_options().threads(1));
  const auto shared = attend::attention(q, q, q, attend::attention_options().threads(4).executor(executor));
  CHECK(runs > 0);
  CHECK(tasks_done >= 2);
  CHECK(tasks_done <= 3 * runs);
  CHECK(same_bits(alone, shared));

  const int before = runs;
  attend::set_executor(&executor);
  const auto again = attend::attention(q, q, q, attend::attention_options().threads(2));
  attend::set_executor(nullptr);
  CHECK(runs > before);
  CHECK(same_bits(alone, again));
  const attend::executor wrong([](int32_t, attend::task) {}, -1);
  CHECK(thrown([&] { attend::set_executor(&wrong); }).argument == "executor");
}

TEST_CASE("settings: instruction sets, threads, versions") {
  CHECK(attend::version() == attend_version());
  CHECK(attend::contract() == attend_contract());
  for (int32_t i = 0; const char *name = attend::isa_name(i); ++i) {
    attend::set_isa(name);
    CHECK(std::string(attend::isa()) == name);
  }
  attend::set_isa(nullptr);
  CHECK(std::string(attend::isa()) == attend::isa_name(0));
  const Thrown t = thrown([] { attend::set_isa("mmx"); });
  CHECK(t.reason == ATTEND_UNKNOWN_ISA);
  CHECK(t.argument == "name");
  CHECK(t.what == "name: " + std::string(attend_status_string(ATTEND_UNKNOWN_ISA)));
  attend::set_threads(3);
#ifdef ATTEND_TEST_OPENMP
  CHECK(attend::threads() == 3);
#else
  CHECK(attend::threads() == 1);
#endif
  attend::set_threads(0);
  CHECK(thrown([] { attend::set_threads(-1); }).argument == "threads");
}

TEST_CASE("errors: reason, argument, words; nothing is written") {
  const std::vector<float> q(12, 1), k(15, 1), v(16, 1);
  std::vector<float> out(12, 7);
  const auto failing = [&] {
    attend::attention(tensor(q, {3, 4}), tensor(k, {5, 3}), tensor(v, {4, 4}), tensor(out, {3, 4}));
  };
  const Thrown t = thrown(failing);
  CHECK(t.reason == ATTEND_INVALID_SHAPE);
  CHECK(t.argument == "k");
  CHECK(t.what == "k: has 3 features, not q's 4.");
  CHECK(std::count(out.begin(), out.end(), 7.0f) == 12);
  CHECK_THROWS_AS(failing(), std::runtime_error);

  // The same of calls that would own their result, however strange its shape.
  CHECK(thrown([&] { attend::attention(tensor(q, {3, 4}), tensor(k, {5, 3}), tensor(v, {4, 4})); }).argument == "k");
  CHECK(thrown([&] { attend::softmax(tensor(q.data(), {-3, 4})); }).argument == "x");
  CHECK(thrown([&] { attend::softmax(tensor(q.data(), extents())); }).reason == ATTEND_INVALID_RANK);
  const int64_t many = int64_t{1} << 32;
  const tensor<const float> wide(q.data(), {many, int64_t{4}}, {0, 1});
  CHECK(thrown([&] { attend::matmul(columns(q.data(), {many, int64_t{4}}, {0, 1}), wide); }).reason == ATTEND_OVERFLOW);
  CHECK(thrown([&] { attend::softmax(tensor(std::vector<unsigned char>(4))); }).argument == "x");

  // Lengths are counted, since the library cannot.
  const tensor one(q, {3, 4});
  for (const size_t count : {0u, 2u}) {
    const std::vector<int64_t> wrong(count);
    const auto with = [&](attend::attention_options o) { return thrown([&] { attend::attention(one, one, one, o); }); };
    CHECK(with(attend::attention_options().kv_lengths(wrong)).what ==
          "options.kv_lengths: has " + std::to_string(count) + " numbers, but the batch is 1.");
    CHECK(with(attend::attention_options().kv_lengths(wrong)).argument == "options.kv_lengths");
    CHECK(with(attend::attention_options().kv_first(wrong)).argument == "options.kv_first");
    CHECK(with(attend::attention_options().query_offsets(wrong)).reason == ATTEND_INVALID_SHAPE);
  }
  CHECK(attend::attention(one, one, one, attend::attention_options().kv_lengths(std::array<int64_t, 1>{2})).size() ==
        12);
}

TEST_CASE("errors: the sentence of every function, and of both options of self-attention") {
  const std::vector<float> x(12, 1);
  std::vector<float> y(12), small(6);
  const tensor t(x, {3, 4});
  const auto what = [](const auto &call) { return thrown(call).what; };
  CHECK(what([&] { attend::matmul(t, t); }) == "b: has 4 rows, not a's 3 columns.");
  CHECK(what([&] { attend::softmax(t, small); }) == "y: has 6 rows, not x's 4.");
  CHECK(what([&] { attend::convert(t, small); }) == "y: has 6 rows, not x's 4.");
  CHECK(what([&] { attend::attention_merge(y, small, x, x); }).find("lse_a: has 6 ") == 0);
  CHECK(what([&] { attend::attention(t, t, t, attend::attention_options().softcap(-2.5)); }) ==
        "options.softcap: is -2.5, but must be finite and 0 or more.");
  CHECK(what([&] { attend::attention_workspace(t, t, t, small); }).find("out: has 6 ") == 0);
  CHECK(what([&] {
          attend::matmul(t, tensor(x, {4, 3}), attend::matmul_options().beta(1));
        }) == "beta: must be 0 without an output: there is no C to read.");

  const attend::self_attention_weights weights(columns(x, {3, 4}), columns(x, {3, 4}), columns(x, {3, 4}));
  using options = attend::attention_options;
  CHECK(what([&] { attend::self_attention(t, weights, options().threads(-1)); }) ==
        what([&] { attend::attention(t, t, t, options().threads(-1)); }));
  CHECK(what([&] { attend::self_attention(t, weights, options().softcap(-2.5)); }) ==
        "attention_options.softcap: is -2.5, but must be finite and 0 or more.");
  const Thrown scale = thrown([&] { attend::self_attention(t, weights, options().k_scale(std::array<float, 1>{1})); });
  CHECK(scale.reason == ATTEND_INVALID_VALUE);
  CHECK(scale.argument == "attention_options.k_scale");
}

TEST_CASE("errors: a caller's own room for the message") {
  const std::vector<float> x(15, 1);
  const tensor q(x.data(), {3, 4}), k(x, {3, 5});
  char room[80] = "before";
  auto options = attend::attention_options();
  options.c().message = room;
  options.c().message_size = sizeof room;
  attend::attention(q, q, q, options);
  CHECK(std::string(room) == "before");
  const std::string sentence = "k: has 5 features, not q's 4.";
  CHECK(thrown([&] { attend::attention(q, k, q, options); }).what == sentence);
  CHECK(room == sentence);
  const attend::self_attention_weights weights(k, k, k);
  CHECK(thrown([&] { attend::self_attention(q, weights, options); }).what == room);
  CHECK(room != sentence);
  // Too small: as much as there is. None: the header's own.
  options.c().message_size = 7;
  CHECK(thrown([&] { attend::attention(q, k, q, options); }).what == sentence.substr(0, 6));
  options.c().message_size = 0;
  CHECK(thrown([&] { attend::attention(q, k, q, options); }).what == sentence);
  CHECK(room == sentence.substr(0, 6));
  // With a wrong size nothing is said, and with none to be written to.
  options.c().message_size = sizeof room;
  options.c().size = 8;
  Thrown t = thrown([&] { attend::attention(q, k, q, options); });
  CHECK(t.what == t.argument + ": " + attend_status_string(ATTEND_INVALID_STRUCT_SIZE));
  CHECK(t.argument == "options.size");
  options = attend::attention_options();
  options.c().message_size = 7;
  t = thrown([&] { attend::attention(q, k, q, options); });
  CHECK(t.argument == "options.message");
  CHECK(t.what == t.argument + ": " + attend_status_string(ATTEND_NULL_POINTER));
}

TEST_CASE("without exceptions: statuses and results, in the same program") { CHECK(attend_hpp_statuses() == ""); }
