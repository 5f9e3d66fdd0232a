! Rotary embedding, and new keys and values into caches. Programs use the module attend.
!
! SPDX-License-Identifier: BSD-3-Clause
module attend_serving
  use, intrinsic :: iso_c_binding
  use attend_c
  use attend_status
  use attend_arguments
  implicit none
  private

  public :: attend_rotary, attend_kv_append

contains

  ! Each pair of features of x (d, n, h, b) turned by the angle of its item's position, into y of the same shape, which may
  ! be x where elements have one size. cos, sin: (rotary_dims / 2, positions, 1 or h, 1 or b).
  ! rotary_dims: so many features, an even number, are rotated, the others copied; all by default.
  ! positions: one for each item, columns before batches; offsets: one for each batch, instead: that of its first item.
  ! Both count from 0. starts: packed sequences, the columns of x before each, and the number of all: [0, .., n].
  ! interleaved: pairs are neighbours, not i and i + rotary_dims / 2; inverse: by the opposite angle.
  subroutine attend_rotary(x, cos, sin, y, rotary_dims, positions, offsets, starts, interleaved, inverse, threads, status, &
                           message)
    type(attend_tensor), intent(in), target :: x, cos, sin, y
    integer, intent(in), optional :: rotary_dims, threads
    integer(c_int64_t), intent(in), target, contiguous, optional :: positions(:), offsets(:), starts(:)
    logical, intent(in), optional :: interleaved, inverse
    integer(c_int32_t), intent(out), optional :: status
    character(len=*), intent(inout), optional :: message
    character(kind=c_char), target :: letters(room)
    character(len=100) :: said
    type(rotary_options), target :: options
    call check_version()
    said = ''
    call look_at_starts(starts, 'starts', options%sequences, said)
    call look_per_batch(offsets, 'offsets', batches(x, options%sequences), said)
    call look_per_item(positions, 'positions', items_of(x), said)
    if (said /= '') then
      call finish(attend_invalid_shape, trim(said), status, message)
      return
    end if
    options%size = int(c_sizeof(options), c_int32_t)
    call receive(letters, options%message, options%message_size)
    if (present(rotary_dims)) options%rotary_dims = rotary_dims
    if (present(interleaved)) options%flags = merge(interleaved_flag, 0, interleaved)
    if (present(inverse)) options%flags = options%flags + merge(inverse_flag, 0, inverse)
    if (present(threads)) options%threads = threads
    options%positions = list_loc(positions)
    options%offsets = list_loc(offsets)
    options%starts = list_loc(starts)
    call finish_call(c_rotary(x, cos, sin, y, options), letters, status, message)
  end subroutine

  ! New keys and values into their caches, k rotated if there are tables, both converted to the types of the caches:
  ! k (d, new, hkv, b), v (dv, new, hkv, b), caches (d, capacity, hkv, b) and (dv, ..), or pools (.., page size, hkv, pages);
  ! v and v_cache may both be absent. What is no new item's stays as it is.
  ! offsets: one for each batch, the items that its cache has; starts: packed sequences, as of attend_rotary. pages: as of
  ! attend_attention. slots: one for each item, instead: page * page size + column, all from 0 (of caches without pages batch
  ! * capacity + column); -1: it goes nowhere. k_scale: of caches of 8 bits, as of attend_attention; with compute_k_scale
  ! (1, capacity, hkv, b), or a pool of such, which is written; v_scale: the same of v.
  subroutine attend_kv_append(k, v, k_cache, v_cache, starts, offsets, slots, pages, k_scale, v_scale, compute_k_scale, &
                              compute_v_scale, cos, sin, rotary_dims, positions, interleaved, threads, status, message)
    type(attend_tensor), intent(in), target :: k, k_cache
    type(attend_tensor), intent(in), target, optional :: v, v_cache, pages, k_scale, v_scale, cos, sin
    integer(c_int64_t), intent(in), target, contiguous, optional :: starts(:), offsets(:), slots(:), positions(:)
    logical, intent(in), optional :: compute_k_scale, compute_v_scale, interleaved
    integer, intent(in), optional :: rotary_dims, threads
    integer(c_int32_t), intent(out), optional :: status
    character(len=*), intent(inout), optional :: message
    character(kind=c_char), target :: letters(room)
    character(len=100) :: said
    type(kv_append_options), target :: options
    call check_version()
    said = ''
    call look_at_starts(starts, 'starts', options%sequences, said)
    call look_per_batch(offsets, 'offsets', batches(k, options%sequences), said)
    call look_per_item(slots, 'slots', items_of(k), said)
    call look_per_item(positions, 'positions', items_of(k), said)
    if (said /= '') then
      call finish(attend_invalid_shape, trim(said), status, message)
      return
    end if
    options%size = int(c_sizeof(options), c_int32_t)
    call receive(letters, options%message, options%message_size)
    if (present(interleaved)) options%flags = merge(interleaved_flag, 0, interleaved)
    if (present(compute_k_scale)) options%flags = options%flags + merge(compute_k_flag, 0, compute_k_scale)
    if (present(compute_v_scale)) options%flags = options%flags + merge(compute_v_flag, 0, compute_v_scale)
    if (present(rotary_dims)) options%rotary_dims = rotary_dims
    if (present(threads)) options%threads = threads
    options%starts = list_loc(starts)
    options%offsets = list_loc(offsets)
    options%slots = list_loc(slots)
    options%positions = list_loc(positions)
    options%pages = optional_loc(pages)
    options%k_scale = optional_loc(k_scale)
    options%v_scale = optional_loc(v_scale)
    options%cos = optional_loc(cos)
    options%sin = optional_loc(sin)
    call finish_call(c_kv_append(k, optional_loc(v), k_cache, optional_loc(v_cache), options), letters, status, message)
  end subroutine

  pure integer(c_int64_t) function batches(t, sequences)
    type(attend_tensor), intent(in) :: t
    integer(c_int64_t), intent(in) :: sequences
    batches = merge(sequences, batches_of(t), sequences > 0)
  end function

end module
