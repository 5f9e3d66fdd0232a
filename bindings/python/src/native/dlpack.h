/* The part of DLPack's C structures that attend reads: layout fixed by its specification (version 1.x, and what
 * producers of before that give).
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef ATTEND_PYTHON_DLPACK_H
#define ATTEND_PYTHON_DLPACK_H

#include <stdint.h>

enum { kDLCPU = 1, kDLCUDAHost = 3, kDLROCMHost = 11 };
enum { kDLInt = 0, kDLUInt = 1, kDLFloat = 2, kDLBfloat = 4, kDLBool = 6, kDLFloat8_e4m3fn = 10 };

typedef struct {
  int32_t device_type, device_id;
} DLDevice;

typedef struct {
  uint8_t code, bits;
  uint16_t lanes;
} DLDataType;

typedef struct {
  void *data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape;
  int64_t *strides; /* in elements; null: compact, last axis first in memory */
  uint64_t byte_offset;
} DLTensor;

typedef struct DLManagedTensor {
  DLTensor dl_tensor;
  void *manager_ctx;
  void (*deleter)(struct DLManagedTensor *self);
} DLManagedTensor; /* in a capsule called "dltensor" */

enum { kDLFlagReadOnly = 1, kDLFlagIsCopied = 2 };

typedef struct DLManagedTensorVersioned {
  struct {
    uint32_t major, minor;
  } version;
  void *manager_ctx;
  void (*deleter)(struct DLManagedTensorVersioned *self);
  uint64_t flags;
  DLTensor dl_tensor;
} DLManagedTensorVersioned; /* in a capsule called "dltensor_versioned" */

/* What a type of arrays may offer beside __dlpack__, from version 1.2 on. */
typedef struct DLPackExchangeAPI {
  struct {
    uint32_t major, minor;
  } version;
  void *older;
  void *not_read[3];
  int (*dltensor_from_py_object_no_sync)(void *object, DLTensor *out); /* borrowed; or null */
} DLPackExchangeAPI;                                                   /* in a capsule called "dlpack_exchange_api" */

#endif
