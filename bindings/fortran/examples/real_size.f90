! Attention of 8 heads of 1024 items and 64 features, beside the same by Fortran's own matmul.
program real_size
  use, intrinsic :: iso_c_binding
  use attend
  implicit none
  integer, parameter :: d = 64, n = 1024, heads = 8
  real(c_float), allocatable, target :: q(:, :, :), k(:, :, :), v(:, :, :), ours(:, :, :), theirs(:, :, :)
  real(c_float), allocatable :: s(:, :)
  real(c_double) :: best_ours, best_theirs
  integer(c_int64_t) :: start, finish, rate
  integer :: h, i, round
  allocate (q(d, n, heads), k(d, n, heads), v(d, n, heads), ours(d, n, heads), theirs(d, n, heads), s(n, n))
  call random_number(q)
  call random_number(k)
  call random_number(v)
  best_ours = huge(1d0)
  best_theirs = huge(1d0)
  do round = 1, 3
    call system_clock(start, rate)
    call attend_attention(view(q), view(k), view(v), view(ours))
    call system_clock(finish)
    best_ours = min(best_ours, real(finish - start, c_double) / rate)
    call system_clock(start)
    do h = 1, heads
      s = matmul(transpose(k(:, :, h)), q(:, :, h)) / sqrt(real(d))
      do i = 1, n
        s(:, i) = exp(s(:, i) - maxval(s(:, i)))
        s(:, i) = s(:, i) / sum(s(:, i))
      end do
      theirs(:, :, h) = matmul(v(:, :, h), s)
    end do
    call system_clock(finish)
    best_theirs = min(best_theirs, real(finish - start, c_double) / rate)
  end do
  if (maxval(abs(ours - theirs)) > 1e-4) error stop 'the results differ'
  print '(3a, f8.2, a, i0, a, f9.2, a)', 'attend ', attend_isa(), ':', best_ours * 1e3, ' ms on ', attend_threads(), &
    ' threads; matmul, one thread:', best_theirs * 1e3, ' ms'
end program
