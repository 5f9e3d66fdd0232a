// attend_rotary against the formula, bit by bit: every layout, type, pairing, place in the table and number of threads.
#include "rotary_model.hpp"
#include "tables.hpp"

using namespace attend::test;

namespace {

// A call whose numbers are random; `T`: of the arithmetic.
struct Problem {
  TestTokens tokens;
  int64_t features, heads, dims, positions, table_heads, table_batch;
  bool interleaved, inverse;
  std::vector<int64_t> at, offsets;  // positions, or offsets, or neither

  explicit Problem(Random &random) : tokens(TestTokens::random(random)) {
    features = random.one_in(12) ? random.in(760, 1700) : random.in(2, 150);
    heads = random.in(1, 5);
    dims = 2 * random.in(1, features / 2);
    if (features % 2 == 0 && random.one_in(2)) dims = features;
    interleaved = random.one_in(2);
    inverse = random.one_in(3);
    positions = tokens.longest() + random.in(0, 9);
    table_heads = random.one_in(4) ? heads : 1;
    table_batch = random.one_in(4) ? tokens.sequences() : 1;
    const int64_t kind = random.in(0, 2);
    if (kind == 1) {
      for (int64_t t = 0; t < tokens.count(); ++t) at.push_back(random.in(0, positions - 1));
    }
    if (kind == 2) {
      for (int64_t b = 0; b < tokens.sequences(); ++b) offsets.push_back(random.in(0, positions - tokens.length(b)));
    }
  }
  Shape shape() const { return {features, tokens.columns, heads, tokens.batches}; }
  Shape of_table() const { return {dims / 2, positions, table_heads, table_batch}; }
  attend_rotary_options options(int32_t threads) const {
    attend_rotary_options o = ATTEND_ROTARY_OPTIONS_INIT;
    o.threads = threads;
    o.flags = (interleaved ? ATTEND_ROTARY_INTERLEAVED : 0) | (inverse ? ATTEND_ROTARY_INVERSE : 0);
    o.rotary_dims = dims == features ? 0 : dims;
    o.positions = at.empty() ? nullptr : at.data();
    o.offsets = offsets.empty() ? nullptr : offsets.data();
    if (!tokens.starts.empty()) o.sequences = tokens.sequences(), o.starts = tokens.starts.data();
    return o;
  }
  std::string told() const {
    return std::to_string(features) + " features, " + std::to_string(dims) + " rotated, " + std::to_string(heads) +
           " heads, " + std::to_string(tokens.count()) + " tokens in " + std::to_string(tokens.sequences());
  }

  template <class T>
  Operand<T> wanted(Operand<T> &x, Operand<T> &cos, Operand<T> &sin, bool fused) const {
    Operand<T> y(shape(), {});
    for_each_token(tokens, [&](int64_t token, int64_t j, int64_t b, int64_t sequence, int64_t number) {
      const int64_t position = !at.empty() ? at[static_cast<size_t>(token)]
                                           : number + (offsets.empty() ? 0 : offsets[static_cast<size_t>(sequence)]);
      for (int64_t h = 0; h < heads; ++h) {
        std::vector<T> line;
        for (int64_t i = 0; i < features; ++i) line.push_back(x.at(i, j, h, b));
        const auto number_of = [&](Operand<T> &table) {
          return [&, h, position, sequence](int64_t i) {
            return table.at(i, position, table_heads == 1 ? 0 : h, table_batch == 1 ? 0 : sequence);
          };
        };
        rotate_line(&line, dims / 2, interleaved, inverse, fused, number_of(cos), number_of(sin));
        for (int64_t i = 0; i < features; ++i) y.at(i, j, h, b) = line[static_cast<size_t>(i)];
      }
    });
    return y;
  }
};

}  // namespace

TEST_CASE("rotary: the formula's bits, of any types, layouts and places") {
  Random random(711);
  for (int round = 0; round < rounds(300, 20000); ++round) {
    const Problem p(random);
    Stored x(any_float(random), p.shape(), Operand<float>::random_input_layout(random, 1)),
        y(any_float(random), p.shape(), Operand<float>::random_layout(random)),
        cos(any_float(random), p.of_table(), Operand<float>::random_input_layout(random)),
        sin(any_float(random), p.of_table(), Operand<float>::random_input_layout(random));
    x.fill(random);
    cos.fill(random);
    sin.fill(random);
    attend_rotary_options options = p.options(static_cast<int32_t>(random.in(1, 3)));
    INFO(p.told() << " from " << x.dtype() << " to " << y.dtype() << ", flags " << options.flags);
    for_each_table([&](const std::string &, const std::string &group) {
      Operand<float> want = p.wanted(x.numbers, cos.numbers, sin.numbers, group == "FMA");
      Stored result = y;
      REQUIRE(ok(attend_rotary(x.tensor(), cos.tensor(), sin.tensor(), result.tensor(), &options)));
      CHECK(result.is_rounded(want));
      CHECK(result.gaps_untouched());
    });
  }
}

TEST_CASE("rotary: f64") {
  Random random(712);
  for (int round = 0; round < rounds(100, 5000); ++round) {
    const Problem p(random);
    Operand<double> x(p.shape(), Operand<double>::random_input_layout(random, 1)),
        y(p.shape(), Operand<double>::random_layout(random)),
        cos(p.of_table(), Operand<double>::random_input_layout(random)),
        sin(p.of_table(), Operand<double>::random_input_layout(random));
    x.fill(random);
    cos.fill(random);
    sin.fill(random);
    attend_rotary_options options = p.options(static_cast<int32_t>(random.in(1, 3)));
    INFO(p.told());
    for_each_table([&](const std::string &, const std::string &group) {
      Operand<double> want = p.wanted(x, cos, sin, group == "FMA"), result = y;
      REQUIRE(ok(attend_rotary(x.tensor(), cos.tensor(), sin.tensor(), result.tensor(), &options)));
      CHECK(same_bits(result.values(), want.values()));
      CHECK(result.gaps_untouched());
    });
  }
}

TEST_CASE("rotary: in place, also where only the type changes") {
  Random random(713);
  for (int round = 0; round < rounds(100, 5000); ++round) {
    const Problem p(random);
    const uint32_t type = any_float(random);
    Stored x(type, p.shape(), Operand<float>::random_layout(random)), cos(ATTEND_F32, p.of_table(), {}),
        sin(ATTEND_F32, p.of_table(), {});
    x.fill(random);
    cos.fill(random);
    sin.fill(random);
    const attend_rotary_options options = p.options(2);
    INFO(p.told());
    for_each_table([&](const std::string &, const std::string &) {
      const uint32_t to = type == ATTEND_F32 ? type : random.pick<uint32_t>({ATTEND_BF16, ATTEND_F16});
      Stored apart(to, p.shape(), {}), same = x;
      REQUIRE(ok(attend_rotary(x.tensor(), cos.tensor(), sin.tensor(), apart.tensor(), &options)));
      attend_tensor y = *same.tensor();
      y.dtype = to;
      REQUIRE(ok(attend_rotary(same.tensor(), cos.tensor(), sin.tensor(), &y, &options)));
      CHECK(same.gaps_untouched());
      bool equal = true;
      x.numbers.each([&](float &, int64_t i, int64_t j, int64_t h, int64_t b) {
        const float a = same.numbers.at(i, j, h, b), c = apart.numbers.at(i, j, h, b);
        equal = equal && (to == ATTEND_F32 ? std::memcmp(&a, &c, sizeof a) == 0
                                           : same.bits(i, j, h, b) == apart.bits(i, j, h, b));
      });
      CHECK(equal);
    });
  }
}

// What is a rotation: lengths stay, the inverse comes back, and scores depend on the distance of positions alone.
TEST_CASE("rotary: of angles") {
  const int64_t d = 64, positions = 500;
  for (const uint32_t flag : {0u, ATTEND_ROTARY_INTERLEAVED}) {
    Operand<double> cos({d / 2, positions, 1, 1}, {}), sin = cos, x({d, positions, 1, 1}, {}), y = x, back = x;
    cos.each([&](double &c, int64_t i, int64_t j, auto...) {
      const double angle = static_cast<double>(j) * std::pow(10000.0, -2.0 * static_cast<double>(i) / d);
      c = std::cos(angle);
      sin.at(i, j) = std::sin(angle);
    });
    Random random(714);
    x.each([&](double &v, int64_t i, int64_t j, auto...) { v = j == 0 ? random.normal() : x.at(i, 0); });
    attend_rotary_options options = options_with<attend_rotary_options>(1);
    for_each_isa([&] {
      options.flags = flag;
      REQUIRE(ok(attend_rotary(x.tensor(), cos.tensor(), sin.tensor(), y.tensor(), &options)));
      options.flags = flag | ATTEND_ROTARY_INVERSE;
      REQUIRE(ok(attend_rotary(y.tensor(), cos.tensor(), sin.tensor(), back.tensor(), &options)));
      const auto product = [&](Operand<double> &o, int64_t a, int64_t b) {
        double sum = 0;
        for (int64_t i = 0; i < d; ++i) sum += o.at(i, a) * o.at(i, b);
        return sum;
      };
      double worst = 0;
      back.each([&](double &v, int64_t i, int64_t j, auto...) { worst = std::max(worst, std::fabs(v - x.at(i, j))); });
      CHECK(worst < 1e-14);
      CHECK(product(y, 77, 77) == doctest::Approx(product(x, 0, 0)).epsilon(1e-13));
      CHECK(product(y, 100, 107) == doctest::Approx(product(y, 300, 307)).epsilon(1e-10));
      CHECK(product(y, 100, 107) != doctest::Approx(product(y, 300, 310)).epsilon(1e-3));
    });
  }
}

// What transformers passes: each number twice, for pairs of halves and for neighbours.
TEST_CASE("rotary: a table of full width is one of half the width, by its shape or a stride") {
  const int64_t d = 10, n = 7;
  auto x = drawn<float>({d, n, 2, 1}, 715), cos = drawn<float>({d / 2, n, 1, 1}, 716),
       sin = drawn<float>({d / 2, n, 1, 1}, 717);
  Operand<float> y({d, n, 2, 1}, {}), wide_y = y;
  for (const bool interleaved : {false, true}) {
    Operand<float> wide_cos({d, n, 1, 1}, {}), wide_sin = wide_cos;
    wide_cos.each([&](float &c, int64_t i, int64_t j, auto...) {
      const int64_t pair = interleaved ? i / 2 : i % (d / 2);
      c = cos.at(pair, j);
      wide_sin.at(i, j) = sin.at(pair, j);
    });
    attend_tensor half_cos = *wide_cos.tensor(), half_sin = *wide_sin.tensor();
    for (attend_tensor *t : {&half_cos, &half_sin}) {
      t->shape[0] = d / 2;
      if (interleaved) t->stride[0] *= 2;
    }
    attend_rotary_options options = options_with<attend_rotary_options>(1);
    options.flags = interleaved ? ATTEND_ROTARY_INTERLEAVED : 0;
    REQUIRE(ok(attend_rotary(x.tensor(), cos.tensor(), sin.tensor(), y.tensor(), &options)));
    REQUIRE(ok(attend_rotary(x.tensor(), &half_cos, &half_sin, wide_y.tensor(), &options)));
    CHECK(same_bits(y.values(), wide_y.values()));
  }
}

namespace {

// Small, valid, and whatever may be wrong with it at hand.
struct Spoilable {
  Operand<float> x{{6, 4, 2, 3}, {}}, y{{6, 4, 2, 3}, {}}, cos{{3, 9, 1, 1}, {}}, sin{{3, 9, 1, 1}, {}};
  attend_tensor tx = *x.tensor(), ty = *y.tensor(), tc = *cos.tensor(), ts = *sin.tensor();
  attend_rotary_options options = ATTEND_ROTARY_OPTIONS_INIT;
  std::vector<int64_t> positions = std::vector<int64_t>(12, 0), offsets = {0, 1, 2}, starts = {0, 1, 1, 4};

  attend_status run() { return attend_rotary(&tx, &tc, &ts, &ty, &options); }
  void pack() {
    tx.rank = ty.rank = 3;
    options.sequences = 3;
    options.starts = starts.data();
  }
  // `of_size`: the ..._workspace function says the same, else it does not look.
  void fails(int reason, const std::string &argument, const std::string &text, bool of_size) {
    char said[300] = "";
    options.message = said;
    options.message_size = sizeof said;
    Operand<float> before = y;
    const attend_status s = run();
    CHECK(ATTEND_REASON(s) == reason);
    CHECK(attend_status_argument(s) == argument);
    CHECK(said == argument + ": " + text);
    CHECK(y.same_memory(before));
    uint64_t bytes = 77;
    CHECK(attend_rotary_workspace(&tx, &tc, &ts, &ty, &options, &bytes) == (of_size ? s : ATTEND_OK));
    CHECK(bytes == (of_size ? 77 : 0));
  }
};

}  // namespace

TEST_CASE("rotary: what is wrong is named, and nothing written") {
  const auto spoil = [](int reason, const char *argument, const char *text, bool of_size, auto how) {
    Spoilable call;
    CHECK(ok(call.run()));
    how(call);
    INFO(std::string(argument) << ": " << std::string(text));
    call.fails(reason, argument, text, of_size);
  };
  using S = Spoilable;
  spoil(ATTEND_INVALID_VALUE, "options.rotary_dims",
        "is 5 for 6 features, but must be even and at most as many, 0 for all of them.", true,
        [](S &c) { c.options.rotary_dims = 5; });
  spoil(ATTEND_INVALID_VALUE, "options.rotary_dims",
        "is 8 for 6 features, but must be even and at most as many, 0 for all of them.", true,
        [](S &c) { c.options.rotary_dims = 8; });
  spoil(ATTEND_INVALID_VALUE, "options.rotary_dims",
        "is -2 for 6 features, but must be even and at most as many, 0 for all of them.", true,
        [](S &c) { c.options.rotary_dims = -2; });
  spoil(ATTEND_INVALID_VALUE, "options.rotary_dims",
        "is 0 for 5 features, but must be even and at most as many, 0 for all of them.", true,
        [](S &c) { c.tx.shape[0] = c.ty.shape[0] = 5; });
  spoil(ATTEND_INVALID_SHAPE, "cos", "has 3 rows, not 2, one for each pair of rotated features.", true,
        [](S &c) { c.options.rotary_dims = 4; });
  spoil(ATTEND_INVALID_SHAPE, "cos", "has 3 batches, not 1 or x's 2.", true, [](S &c) {
    c.tc.shape[3] = 3;
    c.tx.shape[3] = 2;
  });
  spoil(ATTEND_INVALID_SHAPE, "cos", "has 3 heads, not 1 or x's 2.", true, [](S &c) { c.tc.shape[2] = 3; });
  spoil(ATTEND_INVALID_SHAPE, "sin", "has 8 columns, not cos's 9.", true, [](S &c) { c.ts.shape[1] = 8; });
  spoil(ATTEND_INVALID_SHAPE, "y", "has 3 columns, not x's 4.", true, [](S &c) { c.ty.shape[1] = 3; });
  spoil(ATTEND_INVALID_VALUE, "cos", "has 3 positions for the 4 items of batch 0.", true,
        [](S &c) { c.tc.shape[1] = c.ts.shape[1] = 3; });
  spoil(ATTEND_INVALID_VALUE, "options.positions", "is 9 for item 11, but cos has 9 positions, counted from 0.", false,
        [](S &c) {
          c.positions[11] = 9;
          c.options.positions = c.positions.data();
        });
  spoil(ATTEND_INVALID_VALUE, "options.positions", "is -1 for item 0, but cos has 9 positions, counted from 0.", false,
        [](S &c) {
          c.positions[0] = -1;
          c.options.positions = c.positions.data();
        });
  spoil(ATTEND_INVALID_VALUE, "options.offsets",
        "is 6 for batch 1 of 4 items, but cos has 9 positions, counted from 0.", false, [](S &c) {
          c.offsets[1] = 6;
          c.options.offsets = c.offsets.data();
        });
  spoil(ATTEND_INVALID_VALUE, "options.offsets",
        "is 9223372036854775807 for batch 2 of 4 items, but cos has 9 positions, counted from 0.", false, [](S &c) {
          c.offsets[2] = INT64_MAX;
          c.options.offsets = c.offsets.data();
        });
  spoil(ATTEND_INVALID_VALUE, "options.offsets",
        "is -1 for batch 0 of 4 items, but cos has 9 positions, counted from 0.", false, [](S &c) {
          c.offsets[0] = -1;
          c.options.offsets = c.offsets.data();
        });
  spoil(ATTEND_INVALID_VALUE, "options.offsets", "is given beside positions, which say all of them.", true, [](S &c) {
    c.options.positions = c.positions.data();
    c.options.offsets = c.offsets.data();
  });
  spoil(ATTEND_INVALID_SHAPE, "x", "has 3 batches, not 1, but its sequences are packed.", true, [](S &c) {
    c.options.sequences = 3;
    c.options.starts = c.starts.data();
  });
  spoil(ATTEND_INVALID_VALUE, "options.sequences", "is 3, but must be 0 without starts.", true, [](S &c) {
    c.pack();
    c.options.starts = nullptr;
  });
  spoil(ATTEND_INVALID_VALUE, "options.sequences",
        "is 0, but must be the number of packed sequences where starts are given.", true, [](S &c) {
          c.pack();
          c.options.sequences = 0;
        });
  spoil(ATTEND_INVALID_VALUE, "options.sequences", "is -1, but must be 0 or more, and at most 2^48.", true, [](S &c) {
    c.pack();
    c.options.sequences = -1;
  });
  spoil(ATTEND_INVALID_VALUE, "options.starts", "begins with 1, but must begin with 0.", false, [](S &c) {
    c.pack();
    c.starts[0] = 1;
  });
  spoil(ATTEND_INVALID_VALUE, "options.starts", "falls from 1 to 0 at sequence 1, but must never decrease.", false,
        [](S &c) {
          c.pack();
          c.starts[2] = 0;
        });
  spoil(ATTEND_INVALID_VALUE, "options.starts", "ends with 5, but must end with 4, the number of packed items.", false,
        [](S &c) {
          c.pack();
          c.starts[3] = 5;
        });
  spoil(ATTEND_INVALID_VALUE, "cos", "has 2 positions for the 3 items of batch 2.", false, [](S &c) {
    c.pack();
    c.tc.shape[1] = c.ts.shape[1] = 2;
  });
  spoil(ATTEND_OVERLAP, "y", "overlaps cos's memory, but needs its own.", false, [](S &c) { c.tc.data = c.ty.data; });
  spoil(ATTEND_OVERLAP, "y", "overlaps x's memory, but needs its own.", false, [](S &c) {
    c.tx.data = c.ty.data;
    c.tx.stride[1] = 12, c.tx.stride[2] = 6;
  });
  spoil(ATTEND_OVERLAP, "y", "overlaps options.offsets's memory, but needs its own.", false,
        [](S &c) { c.options.offsets = reinterpret_cast<const int64_t *>(&c.y.at(0, 0)); });
  spoil(ATTEND_UNSUPPORTED, "options.flags", "has 0x4, which means nothing here.", true,
        [](S &c) { c.options.flags = 4; });
}

TEST_CASE("rotary: nothing to do") {
  for (size_t empty = 0; empty < 4; ++empty) {
    Spoilable call;
    call.tx.shape[empty] = call.ty.shape[empty] = 0;
    if (empty == 0) call.tc.shape[0] = call.ts.shape[0] = 0;
    call.tx.data = call.ty.data = nullptr;
    CHECK(ok(call.run()));
  }
}
