! attend from Fortran: matrix multiply, column softmax and fused attention on CPUs. What the procedures compute, exactly,
! is written in attend.h; this module has its functions, flags and shapes, which are Fortran's own: column-major, so an
! array x(d, n) has the items of the book as its columns.
!
! Operands are views: view(x) of an array or section of rank 1 to 4. Nothing is copied, whatever the strides. The array must
! have the target attribute, and must live as long as the view is used. Its elements are
!
!     real(c_float), real(c_double), logical(c_bool) for masks
!     integer(c_int16_t)      view(x, attend_bf16) or view(x, attend_f16): the bits of numbers
!     integer(c_int8_t)       view(x): integers; view(x, attend_u8), view(x, attend_f8e4m3): the bits of others
!     integer(c_int32_t)      of attend_convert, and products of 8-bit integers
!
! Each operand of a call may be of c_float, bf16 or f16, whatever the others are: computed in c_float, rounded once. Keys and
! values may also be of 8-bit integers with scales, or f8e4m3. Or all are of c_double. What attend does not take together
! is attend_invalid_dtype. lse, scores and scales are c_float, lse and scores c_double where all is.
!
! Every procedure ends with an optional status. With it, the caller decides, and the optional message, as errmsg of
! allocate, receives what is wrong with a call that fails, its numbers included; without it, a failure is an error stop
! that says so.
! attend_message(status) is what can be said of a status alone. All are thread-safe.
!
! SPDX-License-Identifier: BSD-3-Clause
module attend
  use, intrinsic :: iso_c_binding
  use attend_c
  use attend_status
  use attend_arguments
  use attend_serving
  use attend_views
  implicit none
  private

  public :: view, attend_tensor
  public :: attend_matmul, attend_softmax, attend_attention, attend_self_attention, attend_merge
  public :: attend_rotary, attend_kv_append
  public :: attend_convert, attend_bf16, attend_f16, attend_i8, attend_u8, attend_f8e4m3
  public :: attend_message, attend_reason, attend_argument
  public :: attend_version, attend_isa, attend_set_isa, attend_threads, attend_set_threads
  public :: attend_invalid_rank, attend_invalid_shape, attend_invalid_stride, attend_invalid_value, attend_invalid_dtype
  public :: attend_null_pointer, attend_overlap, attend_unknown_isa
  public :: attend_causal_top_left, attend_causal_bottom_right
  public :: attend_scores_scaled, attend_scores_softcapped, attend_scores_masked, attend_scores_probabilities

contains

  ! ---------------------------------------------------------------------------------------------------- functions ---

  ! c = alpha a b + beta c + bias: a (m, k, h, b), b (k, n, h, b), c (m, n, h, b). Of a and b of 8-bit
  ! integers, view(x) or view(x, attend_u8), c is of 32-bit integers, exact, or of floating-point types, and one of signed
  ! integers may stand beside one of those. They then count as a_scale (a - a_zero), b_scale (b - b_zero): (m, 1, h, b) of
  ! a, (1, n, h, b) of b, broadcast; zero points are integer(c_int32_t), between two of integers.
  ! native_dot: allows the CPU's dot products of bf16 where both factors are bf16: up to twice the speed where attend_isa() is
  ! avx512bf16, within attend.h's error bound, not the bits of other CPUs; elsewhere without effect.
  subroutine attend_matmul(a, b, c, alpha, beta, bias, a_scale, b_scale, a_zero, b_zero, native_dot, threads, status, &
                           message)
    type(attend_tensor), intent(in), target :: a, b, c
    real(c_double), intent(in), optional :: alpha, beta
    type(attend_tensor), intent(in), target, optional :: bias, a_scale, b_scale, a_zero, b_zero
    logical, intent(in), optional :: native_dot
    integer, intent(in), optional :: threads
    integer(c_int32_t), intent(out), optional :: status
    character(len=*), intent(inout), optional :: message
    character(kind=c_char), target :: letters(room)
    type(matmul_options), target :: options
    real(c_double) :: factor, keep
    call check_version()
    factor = 1
    keep = 0
    if (present(alpha)) factor = alpha
    if (present(beta)) keep = beta
    if (present(native_dot)) options%flags = merge(attend_native_dot, 0, native_dot)
    if (present(threads)) options%threads = threads
    options%size = int(c_sizeof(options), c_int32_t)
    call receive(letters, options%message, options%message_size)
    options%bias = optional_loc(bias)
    options%a_scale = optional_loc(a_scale)
    options%b_scale = optional_loc(b_scale)
    options%a_zero = optional_loc(a_zero)
    options%b_zero = optional_loc(b_zero)
    call finish_call(c_matmul(factor, a, b, keep, c, options), letters, status, message)
  end subroutine

  ! Softmax down each column of x, into y, which may be x; log: its logarithm.
  subroutine attend_softmax(x, y, log, scale, mask, bias, lse, threads, status, message)
    type(attend_tensor), intent(in), target :: x, y
    logical, intent(in), optional :: log
    real(c_double), intent(in), optional :: scale
    type(attend_tensor), intent(in), target, optional :: mask, bias, lse
    integer, intent(in), optional :: threads
    integer(c_int32_t), intent(out), optional :: status
    character(len=*), intent(inout), optional :: message
    character(kind=c_char), target :: letters(room)
    type(softmax_options), target :: options
    call check_version()
    if (present(log)) options%flags = merge(1, 0, log)
    if (present(scale)) options%scale = scale
    if (present(threads)) options%threads = threads
    options%size = int(c_sizeof(options), c_int32_t)
    call receive(letters, options%message, options%message_size)
    options%mask = optional_loc(mask)
    options%bias = optional_loc(bias)
    options%lse = optional_loc(lse)
    call finish_call(c_softmax(x, y, options), letters, status, message)
  end subroutine

  ! causal: attend_causal_top_left or attend_causal_bottom_right; window: keys to the left and right, -1 = no bound;
  ! kv_lengths, kv_first: of each batch the keys kv_first ... kv_lengths - 1 exist, counted from 0.
  type(attention_options) function options_of(causal, window, scale, softcap, query_offset, query_offsets, kv_lengths, &
                                              kv_first, mask, bias, alibi_slopes, sinks, lse, scores, scores_stage) &
    result(options)
    integer, intent(in), optional :: causal, window(2), scores_stage
    real(c_double), intent(in), optional :: scale, softcap
    integer(c_int64_t), intent(in), optional :: query_offset
    integer(c_int64_t), intent(in), target, contiguous, optional :: query_offsets(:), kv_lengths(:), kv_first(:)
    type(attend_tensor), intent(in), target, optional :: mask, bias, alibi_slopes, sinks, lse, scores
    options%size = int(c_sizeof(options), c_int32_t)
    if (present(causal)) options%flags = causal
    if (present(window)) then
      options%flags = ior(options%flags, 4_c_int32_t)
      options%window_left = window(1)
      options%window_right = window(2)
    end if
    if (present(scale)) options%scale = scale
    if (present(softcap)) options%softcap = softcap
    if (present(query_offset)) options%query_offset = query_offset
    options%query_offsets = list_loc(query_offsets)
    options%kv_lengths = list_loc(kv_lengths)
    options%kv_first = list_loc(kv_first)
    options%mask = optional_loc(mask)
    options%bias = optional_loc(bias)
    options%alibi_slopes = optional_loc(alibi_slopes)
    options%sinks = optional_loc(sinks)
    options%lse = optional_loc(lse)
    options%scores = optional_loc(scores)
    if (present(scores_stage)) options%scores_stage = scores_stage
  end function

  ! How many sequences are packed, and what is wrong with the first list that the library would read behind.
  pure subroutine look_at_lists(out, query_offsets, kv_lengths, kv_first, query_starts, key_starts, sequences, said)
    type(attend_tensor), intent(in) :: out
    integer(c_int64_t), intent(in), optional :: query_offsets(:), kv_lengths(:), kv_first(:), query_starts(:), key_starts(:)
    integer(c_int64_t), intent(out) :: sequences
    character(len=*), intent(out) :: said
    integer(c_int64_t) :: batches
    said = ''
    sequences = 0
    call look_at_starts(query_starts, 'query_starts', sequences, said)
    call look_at_starts(key_starts, 'key_starts', sequences, said)
    batches = merge(sequences, batches_of(out), sequences > 0)
    call look_per_batch(query_offsets, 'query_offsets', batches, said)
    call look_per_batch(kv_lengths, 'kv_lengths', batches, said)
    call look_per_batch(kv_first, 'kv_first', batches, said)
  end subroutine

  ! out = v softmax(scale k^T q): q (d, nq, h, b), k (d, nk, hkv, b), v (dv, nk, hkv, b), out (dv, nq, h, b).
  ! k_scale: what one step of a key of 8 bits stands for, needed with integers: as k, with 1 row (of each key) or 1 key (of
  ! each feature); v_scale: the same of v.
  ! query_starts, key_starts: sequences packed one behind the other, without padding: the columns of q (of k and v) before
  ! each, and the number of all, [0, .., nq]. What is one for each batch is one for each sequence then; a side that is not
  ! packed has the sequences as its batch.
  ! pages (most pages of a sequence, b), of integer(c_int32_t): k and v are pools (d, page size, hkv, pages of the pool), and
  ! the keys of a batch lie in the pages, counted from 0, that its column names. With kv_lengths.
  ! pauses, resumes: keys in several calls, with the bits of one; each but the first resumes, each but the last, of a multiple
  ! of 256 keys, pauses. What is between them lies in state (2 (dv + 2), nq, h, b), as lse of c_float or c_double: a call that
  ! pauses writes it and not out. key_offset: how many keys the calls before had, which moves causal masks, windows and
  ! ALiBi; mask, bias and kv_lengths are of the keys of the call.
  subroutine attend_attention(q, k, v, out, causal, window, scale, softcap, query_offset, query_offsets, kv_lengths, &
                              kv_first, mask, bias, alibi_slopes, sinks, lse, scores, scores_stage, k_scale, v_scale, &
                              query_starts, key_starts, pages, state, pauses, resumes, key_offset, threads, status, message)
    type(attend_tensor), intent(in), target :: q, k, v, out
    integer, intent(in), optional :: causal, window(2), scores_stage, threads
    real(c_double), intent(in), optional :: scale, softcap
    integer(c_int64_t), intent(in), optional :: query_offset
    integer(c_int64_t), intent(in), target, contiguous, optional :: query_offsets(:), kv_lengths(:), kv_first(:)
    integer(c_int64_t), intent(in), target, contiguous, optional :: query_starts(:), key_starts(:)
    type(attend_tensor), intent(in), target, optional :: mask, bias, alibi_slopes, sinks, lse, scores, k_scale, v_scale
    type(attend_tensor), intent(in), target, optional :: pages, state
    logical, intent(in), optional :: pauses, resumes
    integer(c_int64_t), intent(in), optional :: key_offset
    integer(c_int32_t), intent(out), optional :: status
    character(len=*), intent(inout), optional :: message
    character(kind=c_char), target :: letters(room)
    integer(c_int64_t) :: sequences
    character(len=100) :: said
    type(attention_options), target :: options
    call check_version()
    call look_at_lists(out, query_offsets, kv_lengths, kv_first, query_starts, key_starts, sequences, said)
    if (said /= '') then
      call finish(attend_invalid_shape, trim(said), status, message)
      return
    end if
    options = options_of(causal, window, scale, softcap, query_offset, query_offsets, kv_lengths, kv_first, mask, &
                         bias, alibi_slopes, sinks, lse, scores, scores_stage)
    options%k_scale = optional_loc(k_scale)
    options%v_scale = optional_loc(v_scale)
    options%sequences = sequences
    options%query_starts = list_loc(query_starts)
    options%key_starts = list_loc(key_starts)
    options%pages = optional_loc(pages)
    options%state = optional_loc(state)
    if (present(pauses)) options%flags = ior(options%flags, merge(8_c_int32_t, 0_c_int32_t, pauses))
    if (present(resumes)) options%flags = ior(options%flags, merge(16_c_int32_t, 0_c_int32_t, resumes))
    if (present(key_offset)) options%key_offset = key_offset
    call receive(letters, options%message, options%message_size)
    if (present(threads)) options%threads = threads
    call finish_call(c_attention(q, k, v, out, options), letters, status, message)
  end subroutine

  ! (out_a, lse_a) become the attention over the union of two disjoint key sets.
  subroutine attend_merge(out_a, lse_a, out_b, lse_b, threads, status, message)
    type(attend_tensor), intent(in), target :: out_a, lse_a, out_b, lse_b
    integer, intent(in), optional :: threads
    integer(c_int32_t), intent(out), optional :: status
    character(len=*), intent(inout), optional :: message
    character(kind=c_char), target :: letters(room)
    type(merge_options), target :: options
    call check_version()
    options%size = int(c_sizeof(options), c_int32_t)
    call receive(letters, options%message, options%message_size)
    if (present(threads)) options%threads = threads
    call finish_call(c_merge(out_a, lse_a, out_b, lse_b, options), letters, status, message)
  end subroutine

  ! x (d, n, 1, b), w_q (dh, d, h), w_k (dh, d, hkv), w_v (dv, d, hkv), biases (dh, 1, h) ..., w_o (dout, dv, h),
  ! b_o (dout); out (dv, n, h, b), or (dout, n, 1, b) with w_o. query_starts: packed sequences of x, keys included.
  subroutine attend_self_attention(x, w_q, w_k, w_v, out, b_q, b_k, b_v, w_o, b_o, causal, window, scale, softcap, &
                                   query_offset, query_offsets, kv_lengths, kv_first, mask, bias, alibi_slopes, &
                                   sinks, lse, scores, scores_stage, query_starts, threads, status, message)
    type(attend_tensor), intent(in), target :: x, w_q, w_k, w_v, out
    type(attend_tensor), intent(in), target, optional :: b_q, b_k, b_v, w_o, b_o
    integer, intent(in), optional :: causal, window(2), scores_stage, threads
    real(c_double), intent(in), optional :: scale, softcap
    integer(c_int64_t), intent(in), optional :: query_offset
    integer(c_int64_t), intent(in), target, contiguous, optional :: query_offsets(:), kv_lengths(:), kv_first(:)
    integer(c_int64_t), intent(in), target, contiguous, optional :: query_starts(:)
    type(attend_tensor), intent(in), target, optional :: mask, bias, alibi_slopes, sinks, lse, scores
    integer(c_int32_t), intent(out), optional :: status
    character(len=*), intent(inout), optional :: message
    character(kind=c_char), target :: letters(room)
    integer(c_int64_t) :: sequences
    character(len=100) :: said
    type(attention_options), target :: attention
    type(self_attention_options), target :: options
    type(self_attention_weights), target :: weights
    call check_version()
    call look_at_lists(out, query_offsets, kv_lengths, kv_first, query_starts, sequences=sequences, said=said)
    if (said /= '') then
      call finish(attend_invalid_shape, trim(said), status, message)
      return
    end if
    attention = options_of(causal, window, scale, softcap, query_offset, query_offsets, kv_lengths, kv_first, mask, &
                           bias, alibi_slopes, sinks, lse, scores, scores_stage)
    attention%sequences = sequences
    attention%query_starts = list_loc(query_starts)
    options%size = int(c_sizeof(options), c_int32_t)
    call receive(letters, options%message, options%message_size)
    if (present(threads)) options%threads = threads
    weights%size = int(c_sizeof(weights), c_int32_t)
    weights%w_q = c_loc(w_q)
    weights%w_k = c_loc(w_k)
    weights%w_v = c_loc(w_v)
    weights%b_q = optional_loc(b_q)
    weights%b_k = optional_loc(b_k)
    weights%b_v = optional_loc(b_v)
    weights%w_o = optional_loc(w_o)
    weights%b_o = optional_loc(b_o)
    call finish_call(c_self_attention(x, weights, out, options, attention), letters, status, message)
  end subroutine

  ! y = x in another type, any but logical: x, y (m, n, h, b). Rounded once, to nearest even; integers and f8e4m3 take the
  ! nearest that there is. y may be x's memory where elements have one size. scale, of 8-bit types: y = scale x from them,
  ! x / scale to them; broadcasts to x: (1, n) by column, as of each item, (m, 1) by row, (1, 1). With compute_scale, to i8
  ! and f8e4m3, it is written first: the largest magnitude that it stands for over 127 or 448.
  subroutine attend_convert(x, y, scale, compute_scale, threads, status, message)
    type(attend_tensor), intent(in), target :: x, y
    type(attend_tensor), intent(in), target, optional :: scale
    logical, intent(in), optional :: compute_scale
    integer, intent(in), optional :: threads
    integer(c_int32_t), intent(out), optional :: status
    character(len=*), intent(inout), optional :: message
    character(kind=c_char), target :: letters(room)
    type(convert_options), target :: options
    call check_version()
    if (present(compute_scale)) options%flags = merge(compute_scale_flag, 0, compute_scale)
    if (present(threads)) options%threads = threads
    options%size = int(c_sizeof(options), c_int32_t)
    call receive(letters, options%message, options%message_size)
    options%scale = optional_loc(scale)
    call finish_call(c_convert(x, y, options), letters, status, message)
  end subroutine

  ! ------------------------------------------------------------------------------------------------------ library ---

  integer function attend_version()
    attend_version = c_version()
  end function

  function attend_isa() result(name)
    character(len=:), allocatable :: name
    name = text_of(c_isa())
  end function

  ! The named instruction set from now on, '' = the best.
  subroutine attend_set_isa(name, status)
    character(len=*), intent(in) :: name
    integer(c_int32_t), intent(out), optional :: status
    character(kind=c_char), target :: letters(len(name) + 1)
    integer :: i
    do i = 1, len(name)
      letters(i) = name(i:i)
    end do
    letters(len(name) + 1) = c_null_char
    if (len(name) > 0) then
      call finish(c_set_isa(c_loc(letters)), '', status)
    else
      call finish(c_set_isa(c_null_ptr), '', status)
    end if
  end subroutine

  integer function attend_threads()
    attend_threads = c_threads()
  end function

  subroutine attend_set_threads(threads, status)
    integer, intent(in) :: threads
    integer(c_int32_t), intent(out), optional :: status
    character(len=60) :: said
    write (said, '(a, i0, a)') 'threads: is ', threads, ', but must be 0 or more.'
    call finish(c_set_threads(int(threads, c_int32_t)), trim(said), status)
  end subroutine

end module
