! The generic `view` of arrays. Programs use the module attend.
!
! SPDX-License-Identifier: BSD-3-Clause
module attend_views
  use, intrinsic :: iso_c_binding
  use attend_c
  implicit none
  private

  public :: view

  interface view
    module procedure view_f32_1, view_f32_2, view_f32_3, view_f32_4
    module procedure view_f64_1, view_f64_2, view_f64_3, view_f64_4
    module procedure view_i16_1, view_i16_2, view_i16_3, view_i16_4
    module procedure view_i8_1, view_i8_2, view_i8_3, view_i8_4
    module procedure view_i32_1, view_i32_2, view_i32_3, view_i32_4
    module procedure view_bool_1, view_bool_2, view_bool_3, view_bool_4
  end interface

contains

  pure function tensor_of(data, dtype, extents, strides) result(t)
    type(c_ptr), intent(in) :: data
    integer(c_int32_t), intent(in) :: dtype
    integer(c_int64_t), intent(in) :: extents(:), strides(:)
    type(attend_tensor) :: t
    t%data = data
    t%dtype = dtype
    t%rank = size(extents)
    t%shape(1:t%rank) = extents
    t%stride(1:t%rank) = strides
  end function

  ! The given type, or the first of those that elements of a size may be of; of no other: 0, which attend refuses.
  pure integer(c_int32_t) function type_of(types, dtype)
    integer(c_int32_t), intent(in) :: types(:)
    integer(c_int32_t), intent(in), optional :: dtype
    type_of = types(1)
    if (present(dtype)) type_of = merge(dtype, 0, any(dtype == types))
  end function

#define VIEW_TYPE real(c_float)
#define VIEW_DTYPE attend_f32
#define VIEW_BYTES 4
#define VIEW_1 view_f32_1
#define VIEW_2 view_f32_2
#define VIEW_3 view_f32_3
#define VIEW_4 view_f32_4
#include "ranks.inc"
#define VIEW_TYPE real(c_double)
#define VIEW_DTYPE attend_f64
#define VIEW_BYTES 8
#define VIEW_1 view_f64_1
#define VIEW_2 view_f64_2
#define VIEW_3 view_f64_3
#define VIEW_4 view_f64_4
#include "ranks.inc"
#define VIEW_TYPE integer(c_int16_t)
#define VIEW_DTYPE type_of([attend_bf16, attend_f16], dtype)
#define VIEW_BYTES 2
#define VIEW_MORE , dtype
#define VIEW_DECLARED integer(c_int32_t), intent(in) :: dtype
#define VIEW_1 view_i16_1
#define VIEW_2 view_i16_2
#define VIEW_3 view_i16_3
#define VIEW_4 view_i16_4
#include "ranks.inc"
#define VIEW_TYPE integer(c_int8_t)
#define VIEW_DTYPE type_of([attend_i8, attend_u8, attend_f8e4m3], dtype)
#define VIEW_BYTES 1
#define VIEW_MORE , dtype
#define VIEW_DECLARED integer(c_int32_t), intent(in), optional :: dtype
#define VIEW_1 view_i8_1
#define VIEW_2 view_i8_2
#define VIEW_3 view_i8_3
#define VIEW_4 view_i8_4
#include "ranks.inc"
#define VIEW_TYPE integer(c_int32_t)
#define VIEW_DTYPE attend_i32
#define VIEW_BYTES 4
#define VIEW_1 view_i32_1
#define VIEW_2 view_i32_2
#define VIEW_3 view_i32_3
#define VIEW_4 view_i32_4
#include "ranks.inc"
#define VIEW_TYPE logical(c_bool)
#define VIEW_DTYPE attend_bool
#define VIEW_BYTES 1
#define VIEW_1 view_bool_1
#define VIEW_2 view_bool_2
#define VIEW_3 view_bool_3
#define VIEW_4 view_bool_4
#include "ranks.inc"

end module
