! The self-attention of the notebook, printed as it prints it. Argument: bindings/notebook/inputs.txt.
program notebook
  use, intrinsic :: iso_c_binding
  use attend
  implicit none
  real(c_double), target :: x(4, 3), w_q(4, 4), w_k(4, 4), w_v(4, 4), b_q(4, 1), b_k(4, 1), b_v(4, 1), out(4, 3)
  real(c_double) :: expected(4, 3)
  character(len=300) :: path
  integer :: unit
  integer(c_int64_t) :: start, finish, rate
  integer :: i
  call get_command_argument(1, path)
  open (newunit=unit, file=trim(path), action='read', status='old')
  call read_matrix(x)
  call read_matrix(w_q)
  call read_matrix(w_k)
  call read_matrix(w_v)
  call read_matrix(b_q)
  call read_matrix(b_k)
  call read_matrix(b_v)
  call read_matrix(expected)

  call attend_self_attention(view(x), view(w_q), view(w_k), view(w_v), view(out), view(b_q), view(b_k), view(b_v), scale=1d0)
  print '(a)', 'x_prime, unscaled:'
  print '(4f13.8)', out
  if (maxval(abs(out - expected)) > 5d-9) error stop 'differs from the notebook'

  ! The scaled version, which the notebook computes and throws away.
  call attend_self_attention(view(x), view(w_q), view(w_k), view(w_v), view(out), view(b_q), view(b_k), view(b_v))
  print '(a)', 'x_prime, scaled by 1/sqrt(D):'
  print '(4f13.8)', out
  if (maxval(abs(out(:, 1) - [0.97411966d0, -0.23738409d0, -0.72333202d0, -0.34413007d0])) > 5d-9) error stop 'scaled'

  call system_clock(start, rate)
  do i = 1, 100000
    call attend_self_attention(view(x), view(w_q), view(w_k), view(w_v), view(out), view(b_q), view(b_k), view(b_v))
  end do
  call system_clock(finish)
  print '(f8.0, a)', real(finish - start) / real(rate) * 1e9 / 1e5, ' ns a call'

contains
  subroutine read_matrix(matrix)
    real(c_double), intent(out) :: matrix(:, :)
    character(len=20) :: name
    integer :: row, rows, columns
    read (unit, *) name, rows, columns
    if (rows /= size(matrix, 1) .or. columns /= size(matrix, 2)) error stop 'inputs'
    do row = 1, rows
      read (unit, *) matrix(row, :)
    end do
  end subroutine
end program
