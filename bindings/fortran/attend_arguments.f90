! What the procedures have in common: the version they look at, optional views, and lists of integers, whose lengths the
! library cannot see. Programs use the module attend.
!
! SPDX-License-Identifier: BSD-3-Clause
module attend_arguments
  use, intrinsic :: iso_c_binding
  use attend_c
  implicit none
  private

  public :: check_version, optional_loc, list_loc
  public :: batches_of, items_of, look_per_batch, look_per_item, look_at_starts

contains

  ! Fortran has no moment of loading: every call looks, which costs a nanosecond.
  subroutine check_version()
    integer(c_int32_t) :: have
    have = c_version()
    if (have / 100 /= built_for / 100 .or. have < built_for) error stop 'attend: the library is of another version'
  end subroutine

  ! The address of an optional view, null if it is absent.
  type(c_ptr) function optional_loc(t)
    type(attend_tensor), intent(in), target, optional :: t
    optional_loc = c_null_ptr
    if (present(t)) optional_loc = c_loc(t)
  end function

  ! The same of a list.
  type(c_ptr) function list_loc(list)
    integer(c_int64_t), intent(in), target, contiguous, optional :: list(:)
    list_loc = c_null_ptr
    if (present(list)) list_loc = c_loc(list)
  end function

  pure integer(c_int64_t) function batches_of(t)
    type(attend_tensor), intent(in) :: t
    batches_of = merge(t%shape(4), 1_c_int64_t, t%rank == 4)
  end function

  ! Columns of all batches; none where there are more than can be counted, so that no list is long enough.
  pure integer(c_int64_t) function items_of(t)
    type(attend_tensor), intent(in) :: t
    integer(c_int64_t) :: columns
    columns = merge(t%shape(2), 1_c_int64_t, t%rank > 1)
    items_of = -1
    if (columns <= huge(columns) / max(1_c_int64_t, batches_of(t))) items_of = columns * batches_of(t)
  end function

  ! The following say what is wrong with a list that is present, unless something is said already.

  ! One number for each batch, or more, which are not read.
  pure subroutine look_per_batch(list, name, batches, said)
    integer(c_int64_t), intent(in), optional :: list(:)
    character(len=*), intent(in) :: name
    integer(c_int64_t), intent(in) :: batches
    character(len=*), intent(inout) :: said
    if (.not. present(list) .or. said /= '') return
    if (size(list, kind=c_int64_t) >= batches) return
    write (said, '(2a, i0, a, i0, a)') name, ': has ', size(list), ' numbers for ', batches, ' batches.'
  end subroutine

  ! One number for each item.
  pure subroutine look_per_item(list, name, items, said)
    integer(c_int64_t), intent(in), optional :: list(:)
    character(len=*), intent(in) :: name
    integer(c_int64_t), intent(in) :: items
    character(len=*), intent(inout) :: said
    if (.not. present(list) .or. said /= '') return
    if (size(list, kind=c_int64_t) == items) return
    write (said, '(2a, i0, a, i0, a)') name, ': has ', size(list), ' numbers for ', items, ' items.'
  end subroutine

  ! One number more than there are sequences: as many as the caller knows of, or, where that is 0, any.
  pure subroutine look_at_starts(list, name, sequences, said)
    integer(c_int64_t), intent(in), optional :: list(:)
    character(len=*), intent(in) :: name
    integer(c_int64_t), intent(inout) :: sequences
    character(len=*), intent(inout) :: said
    if (.not. present(list) .or. said /= '') return
    if (size(list) < 2) then
      write (said, '(2a, i0, a)') name, ': has ', size(list), ' numbers, but sequences have a beginning and an end.'
    else if (sequences /= 0 .and. size(list) /= sequences + 1) then
      write (said, '(2a, i0, a, i0, a)') name, ': has ', size(list), ' numbers for ', sequences, ' sequences and their end.'
    else
      sequences = size(list) - 1
    end if
  end subroutine

end module
