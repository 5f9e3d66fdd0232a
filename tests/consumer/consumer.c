/* A program that knows nothing of attend but what is installed: a product, a softmax, and their values. */
#include <attend/attend.h>
#include <math.h>
#include <stdio.h>

static attend_tensor matrix(float *data, int64_t rows, int64_t columns) {
  attend_tensor t = {0};
  t.data = data;
  t.dtype = ATTEND_F32;
  t.rank = 2;
  t.shape[0] = rows;
  t.shape[1] = columns;
  t.stride[0] = 1;
  t.stride[1] = rows;
  return t;
}

int main(void) {
  float a[] = {1, 2, 3, 4, 5, 6}, b[] = {1, 0, -1, 2, 1, 0}, c[4] = {0}, p[4] = {0};
  const float product[] = {-4, -4, 5, 8};
  attend_tensor ta = matrix(a, 2, 3), tb = matrix(b, 3, 2), tc = matrix(c, 2, 2), tp = matrix(p, 2, 2);
  const attend_softmax_options options = ATTEND_SOFTMAX_OPTIONS_INIT;
  attend_status status;
  int i;

  if (attend_version() != ATTEND_VERSION) return printf("the library is version %u\n", attend_version()), 1;
  status = attend_matmul(1, &ta, &tb, 0, &tc, NULL);
  if (status == ATTEND_OK) status = attend_softmax(&tc, &tp, &options);
  if (status != ATTEND_OK) {
    printf("%s: %s\n", attend_status_argument(status), attend_status_string(status));
    return 1;
  }
  for (i = 0; i < 4; ++i) {
    const double pair = exp(product[i & ~1]) + exp(product[i | 1]);
    if (c[i] != product[i]) return printf("c[%d] = %g, not %g\n", i, c[i], product[i]), 1;
    if (fabs(p[i] - exp(product[i]) / pair) > 1e-6) return printf("p[%d] = %g\n", i, p[i]), 1;
  }
  printf("attend %u on %s, %d threads\n", attend_version(), attend_isa(), (int)attend_threads());
  return 0;
}
