! The binding against the formula in double precision; `error stop` at the first difference.
#include "checks.inc"

#define MODULE attention_f32
#define ATTENTION of_attention_f32
#define KIND c_float
#define TOLERANCE 1d-5
#include "attention.inc"
#undef MODULE
#undef ATTENTION
#undef KIND
#undef TOLERANCE
#define MODULE attention_f64
#define ATTENTION of_attention_f64
#define KIND c_double
#define TOLERANCE 1d-12
#include "attention.inc"

program attend_test
  use, intrinsic :: iso_c_binding
  use attend
  use checks
  use attention_f32
  use attention_f64
  implicit none

  call of_attention_f32()
  call of_attention_f64()
  call of_matmul_and_softmax()
  call of_errors()
  call of_threads()
  call of_memory()
  if (attend_version() < 100 .or. len(attend_isa()) == 0 .or. attend_threads() < 1) error stop 'library'
  print '(2a)', 'all passed, ', attend_isa()

contains

  subroutine of_matmul_and_softmax()
    real(c_double), target :: a(7, 19), wide(38, 5), c(7, 5), bias(7), y(7, 5), lse(1, 5), logs(7, 5), want(7, 5)
    logical(c_bool), target :: mask(7, 5)
    integer :: j
    call normals(bias)
    do j = 1, 19
      call normals(a(:, j))
    end do
    do j = 1, 5
      call normals(wide(:, j))
    end do
    c = 1
    ! Every other row of an array, in place.
    call attend_matmul(view(a), view(wide(2::2, :)), view(c), alpha=0.5d0, beta=2d0, bias=view(bias))
    want = 0.5d0 * matmul(a, wide(2::2, :)) + 2 + spread(bias, 2, 5)
    call check(maxval(abs(c - want)) < 1d-12, 'matmul of a section')
    mask = .true.
    mask(3, :) = .false.
    call attend_softmax(view(c), view(y), scale=2d0, mask=view(mask), lse=view(lse))
    call attend_softmax(view(c), view(logs), scale=2d0, mask=view(mask), log=.true.)
    do j = 1, 5
      want(:, j) = merge(exp(2 * c(:, j)), 0d0, mask(:, j))
      call check(abs(lse(1, j) - log(sum(want(:, j)))) < 1d-12, 'lse')
      want(:, j) = want(:, j) / sum(want(:, j))
      call check(maxval(abs(logs(:, j) - log(want(:, j))), mask=want(:, j) > 0) < 1d-12, 'log-softmax')
    end do
    call check(maxval(abs(y - want)) < 1d-14, 'softmax')
    ! Along the other axis: a transposed view is a matter of strides, here of a section with a negative one.
    call attend_softmax(view(c(:, 5:1:-1)), view(y(:, 5:1:-1)), scale=2d0, mask=view(mask))
    call check(maxval(abs(y - want)) < 1d-14, 'softmax of a reversed section')
  end subroutine

  subroutine of_errors()
    real(c_float), target :: q(4, 3, 2), k(4, 5, 2), out(4, 3, 2), other(3, 5, 2)
    real(c_double), target :: doubles(4, 5, 2)
    integer(c_int64_t), target :: lengths(1)
    integer(c_int32_t) :: status
    type(attend_tensor) :: t
    q = 0
    k = 0
    out = 7
    call attend_attention(view(q), view(other), view(k), view(out), status=status)
    call expect(status, attend_invalid_shape, 'k')
    call attend_attention(view(q), view(doubles), view(k), view(out), status=status)
    call expect(status, attend_invalid_dtype, 'k')
    call attend_attention(view(q), view(k), view(k), view(q), status=status)
    call expect(status, attend_overlap, 'out')
    call attend_attention(view(q), view(k), view(k), view(out), softcap=-1d0, status=status)
    call expect(status, attend_invalid_value, 'softcap')
    lengths = 6
    call attend_attention(view(q), view(k), view(k), view(out), kv_lengths=lengths, status=status)
    call expect(status, attend_invalid_value, 'kv_lengths')
    call attend_attention(view(q), view(k), view(k), view(out), kv_lengths=lengths(1:0), status=status)
    call check(attend_reason(status) == attend_invalid_shape, 'no lengths')
    call attend_attention(view(q), view(k), view(k), view(out), kv_first=lengths, status=status)
    call expect(status, attend_invalid_value, 'kv_first')
    call attend_attention(view(q), view(k), view(k), view(out), kv_first=lengths(1:0), status=status)
    call check(attend_reason(status) == attend_invalid_shape, 'no first keys')
    t = view(q)
    t%rank = 5
    call attend_attention(t, view(k), view(k), view(out), status=status)
    call expect(status, attend_invalid_rank, 'q')
    t = view(out)
    t%stride(2) = 0
    call attend_attention(view(q), view(k), view(k), t, status=status)
    call expect(status, attend_invalid_stride, 'out')
    t = view(q)
    t%data = c_null_ptr
    call attend_attention(t, view(k), view(k), view(out), status=status)
    call expect(status, attend_null_pointer, 'q')
    call messages(q, k)
    call attend_set_isa('mmx', status)
    call check(attend_reason(status) == attend_unknown_isa, 'isa')
    call check(all(out == 7), 'nothing is written when a call is refused')
  end subroutine

  subroutine messages(q, k)
    real(c_float), intent(in), target :: q(:, :, :), k(:, :, :)
    real(c_float), target :: out(size(q, 1), size(q, 2), size(q, 3)), x(4, 3), w(4, 4), narrow(3, 4), y(4, 3)
    integer(c_int32_t) :: status
    integer(c_int64_t), target :: none(1)
    character(len=80) :: message
    character(len=6) :: short
    message = 'before'
    call attend_attention(view(q), view(k), view(k), view(out), status=status, message=message)
    call check(status == 0 .and. message == 'before', 'no message')
    call attend_attention(view(q), view(k(:3, :, :)), view(k), view(out), status=status, message=short)
    call check(short == 'k: has', 'short message')
    call attend_attention(view(q), view(k(:3, :, :)), view(k), view(out), status=status, message=message)
    call check(message == "k: has 3 features, not q's 4.", message)
    call attend_attention(view(q), view(k), view(k), view(out), window=[1, -2], status=status, message=message)
    call check(message == 'window: left and right are 1 and -2, but must be -1 or more.', message)
    call attend_attention(view(q), view(k), view(k), view(out), kv_first=none(1:0), status=status, message=message)
    call check(message == 'kv_first: has 0 numbers for 1 batches.', message)
    x = 0
    w = 0
    narrow = 0
    call attend_self_attention(view(x), view(w), view(narrow), view(w), view(y), status=status, message=message)
    call check(message == "w_k: has 3 rows, not w_q's 4.", message)
    call attend_self_attention(view(x), view(w), view(w), view(w), view(y), softcap=-1.5d0, status=status, message=message)
    call check(message == 'softcap: is -1.5, but must be finite and 0 or more.', message)
    call attend_matmul(view(w), view(narrow), view(y), status=status, message=message)
    call check(message == "b: has 3 rows, not a's 4 columns.", message)
    call attend_softmax(view(x), view(w), status=status, message=message)
    call check(message == "y: has 4 columns, not x's 3.", message)
    call attend_merge(view(x), view(x(:1, :)), view(w), view(x(:1, :)), status=status, message=message)
    call check(message == "out_b: has 4 queries, not out_a's 3.", message)
  end subroutine

  subroutine expect(status, reason, argument)
    integer(c_int32_t), intent(in) :: status, reason
    character(len=*), intent(in) :: argument
    call check(attend_reason(status) == reason, 'reason of '//attend_message(status))
    call check(index(attend_argument(status), argument) > 0, 'argument '//attend_argument(status))
    call check(len(attend_message(status)) > 20, 'message')
  end subroutine

  ! Calls from many OpenMP threads of the caller's own, each on one thread.
  subroutine of_threads()
    real(c_float), target :: q(16, 33, 4), want(16, 33, 4)
    real(c_float), allocatable, target :: got(:, :, :)
    integer :: i, wrong
    call random_number(q)
    call attend_attention(view(q), view(q), view(q), view(want), causal=attend_causal_top_left)
    wrong = 0
    !$omp parallel do private(got) num_threads(16) reduction(+:wrong)
    do i = 1, 400
      allocate (got(16, 33, 4))
      call attend_attention(view(q), view(q), view(q), view(got), causal=attend_causal_top_left)
      if (any(got /= want)) wrong = wrong + 1
      deallocate (got)
    end do
    call check(wrong == 0, 'same bits from many threads')
  end subroutine

  integer function resident()
    character(len=200) :: line
    integer :: unit, end_of_file
    resident = 0
    open (newunit=unit, file='/proc/self/status', action='read', status='old', iostat=end_of_file)
    do while (end_of_file == 0)
      read (unit, '(a)', iostat=end_of_file) line
      if (line(1:6) == 'VmRSS:') read (line(7:index(line, 'kB') - 1), *) resident
    end do
    close (unit)
  end function

  subroutine of_memory()
    real(c_float), target :: q(64, 64, 8), out(64, 64, 8)
    integer :: i, round, before
    integer(c_int32_t) :: status
    call random_number(q)
    before = 0
    do round = 1, 2
      do i = 1, 1000
        call attend_attention(view(q), view(q), view(q), view(out), threads=1)
        call attend_attention(view(q), view(q), view(q), view(q), status=status)
      end do
      if (round == 1) before = resident()
    end do
    call check(resident() - before < 1024, 'memory grows')
  end subroutine

end program
