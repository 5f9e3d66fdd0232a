! attend.h as it stands: structures, constants and functions. Programs use the module attend.
!
! SPDX-License-Identifier: BSD-3-Clause
module attend_c
  use, intrinsic :: iso_c_binding
  implicit none

  ! The version whose header this is.
  integer(c_int32_t), parameter :: built_for = 100

  integer(c_int32_t), parameter :: attend_null_pointer = 1, attend_invalid_struct_size = 2, attend_invalid_rank = 3
  integer(c_int32_t), parameter :: attend_invalid_dtype = 4, attend_invalid_shape = 5, attend_invalid_stride = 6
  integer(c_int32_t), parameter :: attend_invalid_value = 7, attend_overflow = 8, attend_overlap = 9
  integer(c_int32_t), parameter :: attend_unsupported = 10, attend_workspace_too_small = 11
  integer(c_int32_t), parameter :: attend_out_of_memory = 12, attend_unknown_isa = 13
  integer(c_int32_t), parameter :: attend_f32 = 1, attend_f64 = 2, attend_bf16 = 3, attend_f16 = 4, attend_i8 = 5
  integer(c_int32_t), parameter :: attend_u8 = 6, attend_bool = 7, attend_i32 = 8, attend_f8e4m3 = 9
  integer(c_int32_t), parameter :: attend_native_dot = 65536, compute_scale_flag = 1
  integer(c_int32_t), parameter :: interleaved_flag = 1, inverse_flag = 2, compute_k_flag = 4, compute_v_flag = 8
  integer, parameter :: attend_causal_top_left = 1, attend_causal_bottom_right = 2
  integer, parameter :: attend_scores_scaled = 0, attend_scores_softcapped = 1
  integer, parameter :: attend_scores_masked = 2, attend_scores_probabilities = 3

  type, bind(c) :: attend_tensor
    type(c_ptr) :: data = c_null_ptr
    integer(c_int32_t) :: dtype = 0, rank = 0
    integer(c_int64_t) :: shape(4) = 0, stride(4) = 0
  end type

  type, bind(c) :: matmul_options
    integer(c_int32_t) :: size = 0, flags = 0, threads = 0, reserved = 0
    type(c_ptr) :: workspace = c_null_ptr
    integer(c_int64_t) :: workspace_size = 0
    type(c_ptr) :: message = c_null_ptr
    integer(c_int64_t) :: message_size = 0
    type(c_ptr) :: executor = c_null_ptr
    type(c_ptr) :: bias = c_null_ptr
    type(c_ptr) :: a_scale = c_null_ptr, b_scale = c_null_ptr, a_zero = c_null_ptr, b_zero = c_null_ptr
  end type

  type, bind(c) :: softmax_options
    integer(c_int32_t) :: size = 0, flags = 0, threads = 0, reserved = 0
    type(c_ptr) :: workspace = c_null_ptr
    integer(c_int64_t) :: workspace_size = 0
    type(c_ptr) :: message = c_null_ptr
    integer(c_int64_t) :: message_size = 0
    type(c_ptr) :: executor = c_null_ptr
    real(c_double) :: scale = 0
    type(c_ptr) :: mask = c_null_ptr, bias = c_null_ptr, lse = c_null_ptr
  end type

  type, bind(c) :: attention_options
    integer(c_int32_t) :: size = 0, flags = 0, threads = 0, reserved = 0
    type(c_ptr) :: workspace = c_null_ptr
    integer(c_int64_t) :: workspace_size = 0
    type(c_ptr) :: message = c_null_ptr
    integer(c_int64_t) :: message_size = 0
    type(c_ptr) :: executor = c_null_ptr
    real(c_double) :: scale = 0, softcap = 0
    integer(c_int64_t) :: query_offset = 0
    type(c_ptr) :: query_offsets = c_null_ptr, kv_lengths = c_null_ptr
    integer(c_int64_t) :: window_left = 0, window_right = 0
    type(c_ptr) :: mask = c_null_ptr, bias = c_null_ptr, alibi_slopes = c_null_ptr, sinks = c_null_ptr
    type(c_ptr) :: lse = c_null_ptr, scores = c_null_ptr
    integer(c_int32_t) :: scores_stage = 0, reserved2 = 0
    type(c_ptr) :: k_scale = c_null_ptr, v_scale = c_null_ptr, kv_first = c_null_ptr
    integer(c_int64_t) :: sequences = 0
    type(c_ptr) :: query_starts = c_null_ptr, key_starts = c_null_ptr, pages = c_null_ptr
    integer(c_int64_t) :: key_offset = 0
    type(c_ptr) :: state = c_null_ptr
  end type

  type, bind(c) :: merge_options
    integer(c_int32_t) :: size = 0, flags = 0, threads = 0, reserved = 0
    type(c_ptr) :: workspace = c_null_ptr
    integer(c_int64_t) :: workspace_size = 0
    type(c_ptr) :: message = c_null_ptr
    integer(c_int64_t) :: message_size = 0
    type(c_ptr) :: executor = c_null_ptr
  end type

  type, bind(c) :: self_attention_weights
    integer(c_int32_t) :: size = 0, reserved = 0
    type(c_ptr) :: w_q = c_null_ptr, w_k = c_null_ptr, w_v = c_null_ptr
    type(c_ptr) :: b_q = c_null_ptr, b_k = c_null_ptr, b_v = c_null_ptr
    type(c_ptr) :: w_o = c_null_ptr, b_o = c_null_ptr
  end type

  type, bind(c) :: self_attention_options
    integer(c_int32_t) :: size = 0, flags = 0, threads = 0, reserved = 0
    type(c_ptr) :: workspace = c_null_ptr
    integer(c_int64_t) :: workspace_size = 0
    type(c_ptr) :: message = c_null_ptr
    integer(c_int64_t) :: message_size = 0
    type(c_ptr) :: executor = c_null_ptr
  end type

  type, bind(c) :: convert_options
    integer(c_int32_t) :: size = 0, flags = 0, threads = 0, reserved = 0
    type(c_ptr) :: workspace = c_null_ptr
    integer(c_int64_t) :: workspace_size = 0
    type(c_ptr) :: message = c_null_ptr
    integer(c_int64_t) :: message_size = 0
    type(c_ptr) :: executor = c_null_ptr
    type(c_ptr) :: scale = c_null_ptr
  end type

  type, bind(c) :: rotary_options
    integer(c_int32_t) :: size = 0, flags = 0, threads = 0, reserved = 0
    type(c_ptr) :: workspace = c_null_ptr
    integer(c_int64_t) :: workspace_size = 0
    type(c_ptr) :: message = c_null_ptr
    integer(c_int64_t) :: message_size = 0
    type(c_ptr) :: executor = c_null_ptr
    integer(c_int64_t) :: rotary_dims = 0
    type(c_ptr) :: positions = c_null_ptr, offsets = c_null_ptr
    integer(c_int64_t) :: sequences = 0
    type(c_ptr) :: starts = c_null_ptr
  end type

  type, bind(c) :: kv_append_options
    integer(c_int32_t) :: size = 0, flags = 0, threads = 0, reserved = 0
    type(c_ptr) :: workspace = c_null_ptr
    integer(c_int64_t) :: workspace_size = 0
    type(c_ptr) :: message = c_null_ptr
    integer(c_int64_t) :: message_size = 0
    type(c_ptr) :: executor = c_null_ptr
    integer(c_int64_t) :: sequences = 0
    type(c_ptr) :: starts = c_null_ptr, offsets = c_null_ptr, slots = c_null_ptr, pages = c_null_ptr
    type(c_ptr) :: k_scale = c_null_ptr, v_scale = c_null_ptr, cos = c_null_ptr, sin = c_null_ptr
    integer(c_int64_t) :: rotary_dims = 0
    type(c_ptr) :: positions = c_null_ptr
  end type

  interface
    integer(c_int32_t) function c_matmul(alpha, a, b, beta, c, options) bind(c, name='attend_matmul')
      import
      real(c_double), value :: alpha, beta
      type(attend_tensor), intent(in) :: a, b, c
      type(matmul_options), intent(in) :: options
    end function
    integer(c_int32_t) function c_softmax(x, y, options) bind(c, name='attend_softmax')
      import
      type(attend_tensor), intent(in) :: x, y
      type(softmax_options), intent(in) :: options
    end function
    integer(c_int32_t) function c_attention(q, k, v, out, options) bind(c, name='attend_attention')
      import
      type(attend_tensor), intent(in) :: q, k, v, out
      type(attention_options), intent(in) :: options
    end function
    integer(c_int32_t) function c_merge(out_a, lse_a, out_b, lse_b, options) bind(c, name='attend_attention_merge')
      import
      type(attend_tensor), intent(in) :: out_a, lse_a, out_b, lse_b
      type(merge_options), intent(in) :: options
    end function
    integer(c_int32_t) function c_self_attention(x, weights, out, options, attention) &
      bind(c, name='attend_self_attention')
      import
      type(attend_tensor), intent(in) :: x, out
      type(self_attention_weights), intent(in) :: weights
      type(self_attention_options), intent(in) :: options
      type(attention_options), intent(in) :: attention
    end function
    integer(c_int32_t) function c_convert(x, y, options) bind(c, name='attend_convert')
      import
      type(attend_tensor), intent(in) :: x, y
      type(convert_options), intent(in) :: options
    end function
    integer(c_int32_t) function c_rotary(x, cos, sin, y, options) bind(c, name='attend_rotary')
      import
      type(attend_tensor), intent(in) :: x, cos, sin, y
      type(rotary_options), intent(in) :: options
    end function
    integer(c_int32_t) function c_kv_append(k, v, k_cache, v_cache, options) bind(c, name='attend_kv_append')
      import
      type(attend_tensor), intent(in) :: k, k_cache
      type(c_ptr), value :: v, v_cache
      type(kv_append_options), intent(in) :: options
    end function
    type(c_ptr) function c_status_string(status) bind(c, name='attend_status_string')
      import
      integer(c_int32_t), value :: status
    end function
    type(c_ptr) function c_status_argument(status) bind(c, name='attend_status_argument')
      import
      integer(c_int32_t), value :: status
    end function
    integer(c_int32_t) function c_version() bind(c, name='attend_version')
      import
    end function
    type(c_ptr) function c_isa() bind(c, name='attend_isa')
      import
    end function
    integer(c_int32_t) function c_set_isa(name) bind(c, name='attend_set_isa')
      import
      type(c_ptr), value :: name
    end function
    integer(c_int32_t) function c_threads() bind(c, name='attend_threads')
      import
    end function
    integer(c_int32_t) function c_set_threads(threads) bind(c, name='attend_set_threads')
      import
      integer(c_int32_t), value :: threads
    end function
    pure integer(c_size_t) function c_strlen(text) bind(c, name='strlen')
      import
      type(c_ptr), value :: text
    end function
  end interface
end module
