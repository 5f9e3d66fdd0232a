/* NumPy's legacy random numbers in C: np.random.seed(seed), then np.random.normal(). With them the example draws the
 * same inputs as the notebook, so that its output can be compared digit by digit.
 *
 * SPDX-License-Identifier: BSD-3-Clause
 */
#ifndef ATTEND_EXAMPLES_NUMPY_RANDOM_H
#define ATTEND_EXAMPLES_NUMPY_RANDOM_H

#include <math.h>
#include <stdint.h>

enum { kTwisterWords = 624, kTwisterOffset = 397 };

typedef struct numpy_random {
  uint32_t words[kTwisterWords]; /* the state of the Mersenne twister MT19937 */
  int next;                      /* the word to hand out next */
  int has_kept;                  /* normals come in pairs: the second of the last pair, if it has not been used */
  double kept;
} numpy_random;

static void numpy_seed(numpy_random *random, uint32_t seed) {
  random->words[0] = seed;
  for (uint32_t i = 1; i < kTwisterWords; ++i) {
    const uint32_t previous = random->words[i - 1];
    random->words[i] = 1812433253u * (previous ^ (previous >> 30)) + i;
  }
  random->next = kTwisterWords; /* all used up: the first draw renews the state */
  random->has_kept = 0;
  random->kept = 0;
}

static uint32_t numpy_word(numpy_random *random) {
  uint32_t *w = random->words;
  if (random->next == kTwisterWords) {
    for (int i = 0; i < kTwisterWords; ++i) {
      const uint32_t joined = (w[i] & 0x80000000u) | (w[(i + 1) % kTwisterWords] & 0x7fffffffu);
      w[i] = w[(i + kTwisterOffset) % kTwisterWords] ^ (joined >> 1) ^ ((joined & 1u) ? 0x9908b0dfu : 0u);
    }
    random->next = 0;
  }
  uint32_t word = w[random->next++];
  word ^= word >> 11;
  word ^= (word << 7) & 0x9d2c5680u;
  word ^= (word << 15) & 0xefc60000u;
  return word ^ (word >> 18);
}

/* 53 random bits in [0, 1): 27 of one word, 26 of the next. Two statements, because their order matters. */
static double numpy_uniform(numpy_random *random) {
  const uint32_t high = numpy_word(random) >> 5;
  const uint32_t low = numpy_word(random) >> 6;
  return (high * 67108864.0 + low) / 9007199254740992.0;
}

/* The polar method. NumPy returns the second normal of a pair first. */
static double numpy_normal(numpy_random *random) {
  if (random->has_kept) {
    random->has_kept = 0;
    return random->kept;
  }
  double x, y, square;
  do {
    x = 2 * numpy_uniform(random) - 1;
    y = 2 * numpy_uniform(random) - 1;
    square = x * x + y * y;
  } while (square >= 1 || square == 0);
  const double factor = sqrt(-2 * log(square) / square);
  random->kept = factor * x;
  random->has_kept = 1;
  return factor * y;
}

/* np.random.normal(size=count): arrays are filled in the order of C's memory, row by row. */
static void numpy_normals(numpy_random *random, double *values, int count) {
  for (int i = 0; i < count; ++i) values[i] = numpy_normal(random);
}

#endif /* ATTEND_EXAMPLES_NUMPY_RANDOM_H */
