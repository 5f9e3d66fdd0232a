! What a call said, and how it ends. Programs use the module attend.
!
! SPDX-License-Identifier: BSD-3-Clause
module attend_status
  use, intrinsic :: iso_c_binding
  use attend_c
  implicit none
  private

  public :: attend_message, attend_reason, attend_argument
  public :: text_of, room, receive, finish, finish_call

  ! Letters for what attend says of a call.
  integer, parameter :: room = 512

contains

  ! Lets a call leave its message in letters.
  subroutine receive(letters, message, message_size)
    character(kind=c_char), intent(out), target, contiguous :: letters(:)
    type(c_ptr), intent(out) :: message
    integer(c_int64_t), intent(out) :: message_size
    letters(1) = c_null_char
    message = c_loc(letters)
    message_size = size(letters)
  end subroutine

  function text_of(address) result(text)
    type(c_ptr), intent(in) :: address
    character(len=:), allocatable :: text
    character(kind=c_char), pointer :: letters(:)
    integer :: i
    call c_f_pointer(address, letters, [int(c_strlen(address))])
    allocate (character(len=size(letters)) :: text)
    do i = 1, size(letters)
      text(i:i) = letters(i)
    end do
  end function

  pure integer(c_int32_t) function attend_reason(status)
    integer(c_int32_t), intent(in) :: status
    attend_reason = iand(status, 255_c_int32_t)
  end function

  ! The argument at fault, as attend.h spells it, or ''.
  function attend_argument(status) result(text)
    integer(c_int32_t), intent(in) :: status
    character(len=:), allocatable :: text
    text = text_of(c_status_argument(status))
  end function

  ! What is wrong and what to do about it.
  function attend_message(status) result(text)
    integer(c_int32_t), intent(in) :: status
    character(len=:), allocatable :: text
    text = text_of(c_status_string(status))
    if (len(attend_argument(status)) > 0) text = attend_argument(status)//': '//text
  end function

  ! The text with `by` for every `part`.
  pure recursive function replaced(text, part, by) result(new)
    character(len=*), intent(in) :: text, part, by
    character(len=:), allocatable :: new
    integer :: at
    at = index(text, part)
    if (at == 0) then
      new = text
    else
      new = text(:at - 1)//by//replaced(text(at + len(part):), part, by)
    end if
  end function

  ! Ends a procedure; said is what is known beyond the status, ''  if nothing is.
  subroutine finish(result, said, status, message)
    integer(c_int32_t), intent(in) :: result
    character(len=*), intent(in) :: said
    integer(c_int32_t), intent(out), optional :: status
    character(len=*), intent(inout), optional :: message
    character(len=:), allocatable :: text
    if (present(status)) status = result
    if (result == 0) return
    text = said
    if (said == '') text = attend_message(result)
    if (present(message)) message = text
    if (.not. present(status)) error stop 'attend: '//text
  end subroutine

  ! The same with what attend left in a call's message, by the names of the arguments here.
  subroutine finish_call(result, letters, status, message)
    integer(c_int32_t), intent(in) :: result
    character(kind=c_char), intent(in), target :: letters(room)
    integer(c_int32_t), intent(out), optional :: status
    character(len=*), intent(inout), optional :: message
    character(len=:), allocatable :: said
    if (result == 0) then
      call finish(result, '', status, message)
      return
    end if
    said = text_of(c_loc(letters))
    said = replaced(replaced(replaced(said, 'attention_options.', ''), 'options.', ''), 'weights.', '')
    if (index(said, 'window_left:') == 1) said = 'window:'//said(13:)
    said = replaced(said, 'flags: has ATTEND_COMPUTE_SCALE', 'compute_scale: is true')
    said = replaced(said, 'ATTEND_COMPUTE_SCALE', 'compute_scale')
    said = replaced(said, 'flags: wants a scale computed, but k_', 'compute_k_scale: is true, but k_')
    said = replaced(said, 'flags: wants a scale computed, but v_', 'compute_v_scale: is true, but v_')
    said = replaced(said, 'flags: has ATTEND_COMPUTE_V_SCALE', 'compute_v_scale: is true')
    said = replaced(said, 'flags: has ATTEND_ROTARY_INTERLEAVED', 'interleaved: is true')
    said = replaced(said, 'flags: has ATTEND_CAUSAL_BOTTOM_RIGHT', 'causal: is attend_causal_bottom_right')
    said = replaced(said, 'ATTEND_PARTIAL and ATTEND_CONTINUE', 'pauses and resumes')
    call finish(result, said, status, message)
  end subroutine

end module
