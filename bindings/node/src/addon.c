/* The addon below index.js: makes attend's structures from typed arrays and runs a call, on the caller's thread or on
 * one of libuv's. Shapes, strides and bounds were checked by index.js, the only module that sees these functions.
 *
 * SPDX-License-Identifier: BSD-3-Clause
 */
#define NAPI_VERSION 8
#include <attend/attend.h>
#include <node_api.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { kOperands = 16, kLists = 5, kNumbers = 12 /* rank, shape, stride, offset, needed length, dtype */ };
enum { kMatmul, kSoftmax, kAttention, kMerge, kSelfAttention, kConvert, kRotary, kKvAppend };

typedef struct {
  attend_tensor tensors[kOperands];
  const attend_tensor *operands[kOperands]; /* null where absent */
  double scalars[10];
  /* Of attention: query offsets, kv lengths, kv first, query starts, key starts. Of rotary and append: starts, offsets,
   * positions, slots. */
  const int64_t *lists[kLists];
  int32_t function;
  attend_status status;
  /* of an asynchronous call */
  napi_ref kept;
  napi_deferred deferred;
  napi_async_work work;
  char message[512]; /* what attend says of a failure; the last, since it is not cleared */
} call;

#define TRY(expression)                                                         \
  do {                                                                          \
    if ((expression) != napi_ok) {                                              \
      napi_throw_error(env, NULL, "attend: unexpected argument: " #expression); \
      return NULL;                                                              \
    }                                                                           \
  } while (0)

/* scalars of attention: flags, threads, scale, softcap, query_offset, window_left, window_right, scores_stage,
 * sequences, and key_offset, which attention alone has */
static attend_attention_options attention_options(const call *c, int first) {
  attend_attention_options options = {.size = sizeof options, .flags = (uint32_t)c->scalars[0]};
  options.scale = c->scalars[2];
  options.softcap = c->scalars[3];
  options.query_offset = (int64_t)c->scalars[4];
  options.window_left = (int64_t)c->scalars[5];
  options.window_right = (int64_t)c->scalars[6];
  options.scores_stage = (uint32_t)c->scalars[7];
  options.query_offsets = c->lists[0];
  options.kv_lengths = c->lists[1];
  options.kv_first = c->lists[2];
  options.query_starts = c->lists[3];
  options.key_starts = c->lists[4];
  options.sequences = (int64_t)c->scalars[8];
  options.mask = c->operands[first];
  options.bias = c->operands[first + 1];
  options.alibi_slopes = c->operands[first + 2];
  options.sinks = c->operands[first + 3];
  options.lse = c->operands[first + 4];
  options.scores = c->operands[first + 5];
  return options;
}

#define WITH_MESSAGE(call) .message = (call)->message, .message_size = sizeof(call)->message

/* scalars of rotary and append: flags, threads, rotary_dims, sequences */
static attend_status rotary(call *c) {
  const attend_tensor *const *o = c->operands;
  attend_rotary_options options = {.size = sizeof options, .flags = (uint32_t)c->scalars[0], WITH_MESSAGE(c)};
  options.threads = (int32_t)c->scalars[1];
  options.rotary_dims = (int64_t)c->scalars[2];
  options.sequences = (int64_t)c->scalars[3];
  options.starts = c->lists[0];
  options.offsets = c->lists[1];
  options.positions = c->lists[2];
  return attend_rotary(o[0], o[1], o[2], o[3], &options);
}

static attend_status kv_append(call *c) {
  const attend_tensor *const *o = c->operands;
  attend_kv_append_options options = {.size = sizeof options, .flags = (uint32_t)c->scalars[0], WITH_MESSAGE(c)};
  options.threads = (int32_t)c->scalars[1];
  options.rotary_dims = (int64_t)c->scalars[2];
  options.sequences = (int64_t)c->scalars[3];
  options.starts = c->lists[0];
  options.offsets = c->lists[1];
  options.positions = c->lists[2];
  options.slots = c->lists[3];
  options.pages = o[4];
  options.k_scale = o[5];
  options.v_scale = o[6];
  options.cos = o[7];
  options.sin = o[8];
  return attend_kv_append(o[0], o[1], o[2], o[3], &options);
}

static attend_status run(call *c) {
  const attend_tensor *const *o = c->operands;
  const double *s = c->scalars;
  const int32_t threads = (int32_t)s[1];
  if (c->function == kMatmul) {
    attend_matmul_options options = {
        .size = sizeof options, .flags = (uint32_t)s[0], .threads = threads, WITH_MESSAGE(c)};
    options.bias = o[3];
    options.a_scale = o[4];
    options.b_scale = o[5];
    options.a_zero = o[6];
    options.b_zero = o[7];
    return attend_matmul(s[2], o[0], o[1], s[3], o[2], &options);
  }
  if (c->function == kSoftmax) {
    attend_softmax_options options = {
        .size = sizeof options, .flags = (uint32_t)s[0], .threads = threads, WITH_MESSAGE(c)};
    options.scale = s[2];
    options.mask = o[2];
    options.bias = o[3];
    options.lse = o[4];
    return attend_softmax(o[0], o[1], &options);
  }
  if (c->function == kAttention) {
    attend_attention_options options = attention_options(c, 4);
    options.k_scale = o[10];
    options.v_scale = o[11];
    options.pages = o[12];
    options.state = o[13];
    options.key_offset = (int64_t)s[9];
    options.threads = threads;
    options.message = c->message;
    options.message_size = sizeof c->message;
    return attend_attention(o[0], o[1], o[2], o[3], &options);
  }
  if (c->function == kMerge) {
    const attend_merge_options options = {.size = sizeof options, .threads = threads, WITH_MESSAGE(c)};
    return attend_attention_merge(o[0], o[1], o[2], o[3], &options);
  }
  if (c->function == kConvert) {
    attend_convert_options options = {
        .size = sizeof options, .flags = (uint32_t)s[0], .threads = threads, WITH_MESSAGE(c)};
    options.scale = o[2];
    return attend_convert(o[0], o[1], &options);
  }
  if (c->function == kRotary) return rotary(c);
  if (c->function == kKvAppend) return kv_append(c);
  attend_self_attention_weights weights = {.size = sizeof weights, .w_q = o[2], .w_k = o[3], .w_v = o[4]};
  weights.b_q = o[5];
  weights.b_k = o[6];
  weights.b_v = o[7];
  weights.w_o = o[8];
  weights.b_o = o[9];
  const attend_self_attention_options options = {.size = sizeof options, .threads = threads, WITH_MESSAGE(c)};
  const attend_attention_options attention = attention_options(c, 10);
  return attend_self_attention(o[0], &weights, o[1], &options, &attention);
}

static size_t bytes_of(uint32_t dtype) {
  switch (dtype) {
    case ATTEND_F64:
      return 8;
    case ATTEND_F32:
    case ATTEND_I32:
      return 4;
    case ATTEND_BF16:
    case ATTEND_F16:
      return 2;
    default:
      return 1;
  }
}

/* (function, [typed array or null, ...], numbers: Float64Array, scalars: Float64Array, [BigInt64Array or null, ...]) */
static call *read(napi_env env, napi_callback_info info, call *c, napi_value *arrays) {
  napi_value arguments[5], element;
  size_t count = 5, length;
  void *data;
  TRY(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  memset(c, 0, offsetof(call, message));
  c->message[0] = 0;
  TRY(napi_get_value_int32(env, arguments[0], &c->function));
  double *numbers;
  TRY(napi_get_typedarray_info(env, arguments[2], NULL, NULL, (void **)&numbers, NULL, NULL));
  TRY(napi_get_typedarray_info(env, arguments[3], NULL, &length, &data, NULL, NULL));
  memcpy(c->scalars, data, (length < 10 ? length : 10) * sizeof(double));
  uint32_t operands;
  TRY(napi_get_array_length(env, arguments[1], &operands));
  for (uint32_t i = 0; i < operands && i < kOperands; ++i, numbers += kNumbers) {
    napi_valuetype kind;
    TRY(napi_get_element(env, arguments[1], i, &element));
    TRY(napi_typeof(env, element, &kind));
    if (kind != napi_object) continue;
    TRY(napi_get_typedarray_info(env, element, NULL, &length, &data, NULL, NULL));
    /* Since it was checked, other code of the caller's (a getter of an option) may have shrunk the array. */
    if ((double)length < numbers[10]) {
      napi_throw_range_error(env, NULL, "attend: an array became shorter during the call");
      return NULL;
    }
    attend_tensor *t = &c->tensors[i];
    t->dtype = (uint32_t)numbers[11];
    t->rank = (uint32_t)numbers[0];
    for (int d = 0; d < 4; ++d) {
      t->shape[d] = (int64_t)numbers[1 + d];
      t->stride[d] = (int64_t)numbers[5 + d];
    }
    t->data = data == NULL ? NULL : (char *)data + (size_t)numbers[9] * bytes_of(t->dtype);
    c->operands[i] = t;
  }
  for (uint32_t i = 0; i < kLists; ++i) {
    napi_valuetype kind;
    TRY(napi_get_element(env, arguments[4], i, &element));
    TRY(napi_typeof(env, element, &kind));
    if (kind != napi_object) continue;
    TRY(napi_get_typedarray_info(env, element, NULL, NULL, (void **)&c->lists[i], NULL, NULL));
  }
  /* The arrays and the lists, to be kept alive by an asynchronous call. */
  if (arrays != NULL) {
    TRY(napi_create_array_with_length(env, 2, arrays));
    TRY(napi_set_element(env, *arrays, 0, arguments[1]));
    TRY(napi_set_element(env, *arrays, 1, arguments[4]));
  }
  return c;
}

/* 0, or [status, message]. */
static napi_value outcome(napi_env env, const call *c) {
  napi_value status, message, both;
  TRY(napi_create_int32(env, c->status, &status));
  if (c->status == ATTEND_OK) return status;
  TRY(napi_create_string_utf8(env, c->message, NAPI_AUTO_LENGTH, &message));
  TRY(napi_create_array_with_length(env, 2, &both));
  TRY(napi_set_element(env, both, 0, status));
  TRY(napi_set_element(env, both, 1, message));
  return both;
}

static napi_value run_now(napi_env env, napi_callback_info info) {
  call c;
  if (read(env, info, &c, NULL) == NULL) return NULL;
  c.status = run(&c);
  return outcome(env, &c);
}

static void execute(napi_env env, void *data) {
  (void)env;
  call *c = data;
  c->status = run(c);
}

/* Gives back what an asynchronous call holds, as far as it came. */
static void release(napi_env env, call *c) {
  if (c->kept != NULL) napi_delete_reference(env, c->kept);
  if (c->work != NULL) napi_delete_async_work(env, c->work);
  free(c);
}

/* Ends the promise: with the result, or without one with the error that was thrown. */
static void settle(napi_env env, const call *c, napi_value result) {
  napi_value error;
  if (result != NULL)
    napi_resolve_deferred(env, c->deferred, result);
  else if (napi_get_and_clear_last_exception(env, &error) == napi_ok)
    napi_reject_deferred(env, c->deferred, error);
}

static void complete(napi_env env, napi_status status, void *data) {
  call *c = data;
  if (status != napi_ok) napi_throw_error(env, NULL, "attend: the call was cancelled");
  settle(env, c, status == napi_ok ? outcome(env, c) : NULL);
  release(env, c);
}

static napi_value run_later(napi_env env, napi_callback_info info) {
  call *c = malloc(sizeof *c);
  napi_value arrays, promise, name;
  if (c == NULL) {
    napi_throw_error(env, NULL, "attend: out of memory");
    return NULL;
  }
  if (read(env, info, c, &arrays) == NULL) {
    free(c);
    return NULL;
  }
  /* The promise comes last: what is made must be settled. */
  if (napi_create_reference(env, arrays, 1, &c->kept) != napi_ok ||
      napi_create_string_utf8(env, "attend", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_async_work(env, NULL, name, execute, complete, c, &c->work) != napi_ok ||
      napi_create_promise(env, &c->deferred, &promise) != napi_ok) {
    release(env, c);
    napi_throw_error(env, NULL, "attend: the call could not be queued");
    return NULL;
  }
  if (napi_queue_async_work(env, c->work) != napi_ok) {
    napi_throw_error(env, NULL, "attend: the call could not be queued");
    settle(env, c, NULL);
    release(env, c);
  }
  return promise;
}

static napi_value text(napi_env env, const char *string) {
  napi_value value;
  TRY(napi_create_string_utf8(env, string, NAPI_AUTO_LENGTH, &value));
  return value;
}

static int32_t number_argument(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  int32_t value = 0;
  if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) == napi_ok)
    napi_get_value_int32(env, argument, &value);
  return value;
}

static napi_value message(napi_env env, napi_callback_info info) {
  return text(env, attend_status_string(number_argument(env, info)));
}
static napi_value argument(napi_env env, napi_callback_info info) {
  return text(env, attend_status_argument(number_argument(env, info)));
}
static napi_value isa(napi_env env, napi_callback_info info) {
  (void)info;
  return text(env, attend_isa());
}
static napi_value isa_names(napi_env env, napi_callback_info info) {
  napi_value names;
  (void)info;
  TRY(napi_create_array(env, &names));
  for (int32_t i = 0; attend_isa_name(i) != NULL; ++i)
    TRY(napi_set_element(env, names, (uint32_t)i, text(env, attend_isa_name(i))));
  return names;
}
static napi_value set_isa(napi_env env, napi_callback_info info) {
  napi_value name, status;
  size_t count = 1, length = 0;
  char letters[64] = "";
  TRY(napi_get_cb_info(env, info, &count, &name, NULL, NULL));
  TRY(napi_get_value_string_utf8(env, name, letters, sizeof letters, &length));
  TRY(napi_create_int32(env, attend_set_isa(length == 0 ? NULL : letters), &status));
  return status;
}
static napi_value version(napi_env env, napi_callback_info info) {
  napi_value value;
  (void)info;
  TRY(napi_create_uint32(env, attend_version(), &value));
  return value;
}
static napi_value threads(napi_env env, napi_callback_info info) {
  napi_value value;
  (void)info;
  TRY(napi_create_int32(env, attend_threads(), &value));
  return value;
}
static napi_value set_threads(napi_env env, napi_callback_info info) {
  napi_value value;
  TRY(napi_create_int32(env, attend_set_threads(number_argument(env, info)), &value));
  return value;
}

NAPI_MODULE_INIT() {
  const uint32_t have = attend_version();
  if (have / 100 != ATTEND_VERSION / 100 || have < ATTEND_VERSION) {
    napi_throw_error(env, NULL, "attend: the library that was loaded is of another version than this package");
    return NULL;
  }
  static const struct {
    const char *name;
    napi_callback function;
  } functions[] = {{"run", run_now},     {"runLater", run_later},    {"message", message}, {"argument", argument},
                   {"isa", isa},         {"isaNames", isa_names},    {"setIsa", set_isa},  {"version", version},
                   {"threads", threads}, {"setThreads", set_threads}};
  for (size_t i = 0; i < sizeof functions / sizeof *functions; ++i) {
    napi_value function;
    TRY(napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].function, NULL, &function));
    TRY(napi_set_named_property(env, exports, functions[i].name, function));
  }
  return exports;
}
