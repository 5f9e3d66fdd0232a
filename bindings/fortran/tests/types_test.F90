! Element types: the bits of the c_float call on widened operands, rounded once; keys and values of 8 bits; conversion.
#include "checks.inc"

program types_test
  use, intrinsic :: iso_c_binding
  use attend
  use checks
  implicit none

  ! A type of 16 bits: its bits of exponent and fraction, and its numbers from 0 up.
  type :: format
    integer(c_int32_t) :: dtype
    integer :: exponent, fraction
    real(c_double), allocatable :: numbers(:)
  end type
  type(format) :: bf16, f16
  integer :: i
  bf16 = format(attend_bf16, 8, 7, [(number(i, 8, 7), i=0, 255 * 128 - 1)])
  f16 = format(attend_f16, 5, 10, [(number(i, 5, 10), i=0, 31 * 1024 - 1)])

  call of_functions(bf16, f16)
  call of_functions(f16, bf16)
  call of_native_dot()
  call of_eight_bits()
  call of_conversion(bf16)
  call of_conversion(f16)
  call of_other_conversions()
  call of_scales()
  call of_integers()
  call of_messages()
  print '(a)', 'all types passed'

contains

  ! By definition; without a sign.
  pure elemental real(c_double) function number(bits, exponent, fraction)
    integer, intent(in) :: bits, exponent, fraction
    integer :: e, bias
    real(c_double) :: part
    bias = 2**(exponent - 1) - 1
    e = bits / 2**fraction
    part = mod(bits, 2**fraction) / 2d0**fraction
    number = merge(part * 2d0**(1 - bias), (1 + part) * 2d0**(e - bias), e == 0)
  end function

  ! The bits of the nearest number of a format, found among all of them.
  elemental integer(c_int16_t) function nearest_in(f, x)
    type(format), intent(in) :: f
    real(c_float), intent(in) :: x
    integer :: low, high, middle
    real(c_double) :: below, above
    low = 0
    high = size(f%numbers) - 1
    do while (high - low > 1)
      middle = (low + high) / 2
      if (f%numbers(middle + 1) <= abs(x)) then
        low = middle
      else
        high = middle
      end if
    end do
    below = abs(real(x, c_double)) - f%numbers(low + 1)
    above = f%numbers(high + 1) - abs(real(x, c_double))
    if (above < below .or. (above == below .and. mod(low, 2) == 1)) low = high
    nearest_in = int(low - merge(32768, 0, sign(1.0, x) < 0), c_int16_t)
  end function

  elemental real(c_float) function widened(f, bits)
    type(format), intent(in) :: f
    integer(c_int16_t), intent(in) :: bits
    widened = real(f%numbers(iand(int(bits), 32767) + 1), c_float)
    if (bits < 0) widened = -widened
  end function

  ! Random numbers of a format, and the same in c_float.
  subroutine draw(f, bits, wide)
    type(format), intent(in) :: f
    integer(c_int16_t), intent(out) :: bits(:, :)
    real(c_float), intent(out) :: wide(:, :)
    real(c_double) :: x(size(bits))
    call normals(x)
    bits = nearest_in(f, real(reshape(x, shape(bits)), c_float))
    wide = widened(f, bits)
  end subroutine

  ! Operands of types f and g, and of c_float.
  subroutine of_functions(f, g)
    type(format), intent(in) :: f, g
    integer(c_int16_t), target :: q(12, 5), k(12, 300), bias(300, 5), out(12, 5), a(7, 600), b(600, 5), c(7, 5)
    integer(c_int16_t), target :: x(8, 6), y(8, 6), w(8, 8)
    real(c_float), target :: wide_q(12, 5), wide_k(12, 300), v(12, 300), wide_bias(300, 5), wide_out(12, 5)
    real(c_float), target :: wide_a(7, 600), wide_b(600, 5), wide_c(7, 5), lse(1, 5), wide_lse(1, 5)
    real(c_float), target :: wide_x(8, 6), wide_y(8, 6), wide_w(8, 8), lse_a(1, 6), lse_b(1, 6), direct(8, 6)
    call draw(f, q, wide_q)
    call draw(g, k, wide_k)
    call draw(g, bias, wide_bias)
    call random_number(v)
    call attend_attention(view(q, f%dtype), view(k, g%dtype), view(v), view(out, f%dtype), bias=view(bias, g%dtype), &
                          lse=view(lse))
    call attend_attention(view(wide_q), view(wide_k), view(v), view(wide_out), bias=view(wide_bias), lse=view(wide_lse))
    call check(all(out == nearest_in(f, wide_out)), 'attention of mixed types')
    call check(all(lse == wide_lse), 'lse of mixed types')

    call draw(f, a, wide_a)
    call draw(g, b, wide_b)
    call attend_matmul(view(a, f%dtype), view(b, g%dtype), view(c, g%dtype))
    call attend_matmul(view(wide_a), view(wide_b), view(wide_c))
    call check(all(c == nearest_in(g, wide_c)), 'matmul of mixed types')

    call draw(f, x, wide_x)
    call draw(g, w, wide_w)
    call attend_softmax(view(wide_x), view(wide_y))
    call attend_softmax(view(x, f%dtype), view(direct))
    call check(all(direct == wide_y), 'softmax into c_float')
    y = x
    call attend_softmax(view(y, f%dtype), view(y, f%dtype))
    call check(all(y == nearest_in(f, wide_y)), 'softmax in place')
    call attend_self_attention(view(x, f%dtype), view(w, g%dtype), view(wide_w), view(w, g%dtype), view(y, f%dtype))
    call attend_self_attention(view(wide_x), view(wide_w), view(wide_w), view(wide_w), view(wide_y))
    call check(all(y == nearest_in(f, wide_y)), 'self-attention of mixed types')

    wide_y = widened(f, y)
    lse_a = 0
    lse_b = 0.5
    call attend_merge(view(y, f%dtype), view(lse_a), view(x, f%dtype), view(lse_b))
    lse_a = 0
    call attend_merge(view(wide_y), view(lse_a), view(wide_x), view(lse_b))
    call check(all(y == nearest_in(f, wide_y)), 'merge')
  end subroutine

  ! The same of integers. Of four rows on every CPU that has them, the dot products count what lies below the smallest
  ! normal number as 0.
  subroutine of_native_dot()
    integer(c_int16_t), target :: a(4, 96), b(96, 64)
    real(c_float), target :: c(4, 64), plain(4, 64)
    real(c_float) :: u(4, 96), v(96, 64), tiny
    call random_number(u)
    call random_number(v)
    a = nearest_in(bf16, anint(18 * u - 9))
    b = nearest_in(bf16, anint(18 * v - 9))
    call attend_matmul(view(a, attend_bf16), view(b, attend_bf16), view(c), native_dot=.true.)
    call attend_matmul(view(a, attend_bf16), view(b, attend_bf16), view(plain))
    call check(all(c == plain), 'native dot products of integers')
    a = nearest_in(bf16, 2.0**(-70))
    b = nearest_in(bf16, 2.0**(-70))
    tiny = scale(96.0, -140)
    call attend_matmul(view(a, attend_bf16), view(b, attend_bf16), view(c), native_dot=.false.)
    call check(all(c == tiny), 'no native dot products')
    if (attend_isa() == 'avx512bf16') tiny = 0
    call attend_matmul(view(a, attend_bf16), view(b, attend_bf16), view(c), native_dot=.true.)
    call check(all(c == tiny), 'native dot products')
  end subroutine

  ! Scales of powers of two, with which it makes no difference when they are multiplied; below one, so that no weight is
  ! subnormal, whose products are rounded.
  subroutine of_eight_bits()
    integer, parameter :: n = 40, e = 8
    integer(c_int8_t), target :: k(e, n), v(e, n)
    real(c_float), target :: q(e, 3), wide_k(e, n), wide_v(e, n), out(e, 3), want(e, 3), per_key(1, n), per_feature(e, 1)
    real(c_float) :: u(e, n)
    integer :: j
    call random_number(q)
    call random_number(u)
    k = int(255 * u - 127, c_int8_t)
    call random_number(u)
    v = int(255 * u - 127, c_int8_t)
    per_key(1, :) = [(2.0**(-5 - mod(j, 5)), j=1, n)]
    per_feature(:, 1) = [(2.0**(-5 - mod(j, 3)), j=1, e)]
    wide_k = k * spread(per_key(1, :), 1, e)
    wide_v = v * spread(per_feature(:, 1), 2, n)
    call attend_attention(view(q), view(k), view(v), view(out), k_scale=view(per_key), v_scale=view(per_feature))
    call attend_attention(view(q), view(wide_k), view(wide_v), view(want))
    call check(all(out == want), 'integers with a scale for each key, and for each feature of v')
    wide_k = k * spread(per_feature(:, 1), 2, n)
    wide_v = v * spread(per_key(1, :), 1, e)
    call attend_attention(view(q), view(k, attend_i8), view(v), view(out), k_scale=view(per_feature), v_scale=view(per_key))
    call attend_attention(view(q), view(wide_k), view(wide_v), view(want))
    call check(all(out == want), 'integers with a scale for each feature, and for each key of v')

    k = int(abs(int(k)), c_int8_t)
    k = merge(k - 1_c_int8_t, k, k == 127) ! that is NaN
    wide_k = real(number(int(k), 4, 3), c_float)
    call attend_attention(view(q), view(k, attend_f8e4m3), view(k, attend_f8e4m3), view(out))
    call attend_attention(view(q), view(wide_k), view(wide_k), view(want))
    call check(all(out == want), 'f8e4m3')
    wide_v = wide_k * spread(per_key(1, :), 1, e)
    call attend_attention(view(q), view(k, attend_f8e4m3), view(wide_k), view(out), k_scale=view(per_key))
    call attend_attention(view(q), view(wide_v), view(wide_k), view(want))
    call check(all(out == want), 'f8e4m3 with scales')
  end subroutine

  subroutine of_conversion(f)
    type(format), intent(in) :: f
    integer(c_int16_t), target :: bits(1000), drawn(1000, 1)
    real(c_float), target :: x(1000), wide(1000, 1)
    real(c_double), target :: doubles(1000), draws(1000)
    call normals(draws)
    x = real(draws, c_float)
    call attend_convert(view(x), view(bits, f%dtype))
    call check(all(bits == nearest_in(f, x)), 'conversion to 16 bits')
    call draw(f, drawn, wide)
    call attend_convert(view(drawn(:, 1), f%dtype), view(doubles))
    call check(all(doubles == wide(:, 1)), 'conversion from 16 bits')
  end subroutine

  subroutine of_other_conversions()
    real(c_double), target :: x(4)
    integer(c_int8_t), target :: bytes(4)
    integer(c_int32_t), target :: words(4)
    x = [1.5d0, 2.5d0, -300d0, 1d30]
    call attend_convert(view(x), view(bytes))
    call check(all(bytes == [2, 2, -128, 127]), 'to 8-bit integers')
    call attend_convert(view(x), view(words))
    call check(all(words == [2, 2, -300, huge(words)]), 'to 32-bit integers')
    call attend_convert(view(x), view(bytes, attend_u8))
    call check(all(bytes == [2, 2, 0, -1]), 'to unsigned integers')
    x = [1d0, 1d9, 2d0**(-9), 1.0625d0]
    call attend_convert(view(x), view(bytes, attend_f8e4m3))
    call check(all(bytes == [56, 126, 1, 56]), 'to f8e4m3')
  end subroutine

  ! A scale for each of 10 items is computed; given, it brings the numbers back.
  subroutine of_scales()
    real(c_double) :: draws(1000)
    real(c_float), target :: x(100, 10), back(100, 10), scale(1, 10)
    integer(c_int8_t), target :: y(100, 10)
    call normals(draws)
    x = real(reshape(draws, [100, 10]), c_float)
    call attend_convert(view(x), view(y), scale=view(scale), compute_scale=.true.)
    call check(all(scale(1, :) == maxval(abs(x), 1) / 127), 'computed scales')
    call check(all(abs(y - x / spread(scale(1, :), 1, 100)) <= 0.50001), 'scaled to integers')
    call attend_convert(view(y), view(back), scale=view(scale), threads=1)
    call check(all(back == y * spread(scale(1, :), 1, 100)), 'scaled from integers')
  end subroutine

  ! Products of 8-bit integers: exact sums, and scales of powers of two, with which it is the c_float product's.
  subroutine of_integers()
    integer, parameter :: m = 7, k = 1100, n = 5
    integer(c_int8_t), target :: a(m, k), b(k, n)
    integer(c_int32_t), target :: a_zero(m, 1), b_zero(1), bias(m), c(m, n), sums(m, n)
    real(c_float), target :: a_scale(m, 1), b_scale(1, n), scaled(m, n), x(k, n), wide(m, k), want(m, n)
    real(c_float) :: u(m, k)
    integer(c_int32_t) :: status
    character(len=120) :: message
    call random_number(u)
    a = int(floor(256 * u) - 128, c_int8_t)
    call random_number(x)
    b = int(floor(256 * x) - 128, c_int8_t) ! as unsigned, with 256 for what is below 0
    a_zero(:, 1) = [-9, -6, -3, 0, 3, 6, 9]
    b_zero = 128
    bias = 1000 * [0, 1, 2, 3, 4, 5, 6]
    sums = matmul(int(a) - spread(a_zero(:, 1), 2, k), iand(int(b), 255) - 128)
    call attend_matmul(view(a), view(b, attend_u8), view(c), a_zero=view(a_zero), b_zero=view(b_zero), bias=view(bias))
    call check(all(c == sums + spread(bias, 2, n)), 'sums of integers')
    a_scale(:, 1) = 2.0**[-9, -8, -7, -6, -5, -4, -3]
    b_scale(1, :) = [1.0, 0.5, 0.25, 0.125, 2.0]
    call attend_matmul(view(a), view(b, attend_u8), view(scaled), a_scale=view(a_scale), b_scale=view(b_scale), &
                       a_zero=view(a_zero), b_zero=view(b_zero))
    call check(all(scaled == spread(a_scale(:, 1), 2, n) * spread(b_scale(1, :), 1, m) * sums), 'scaled sums of integers')
    ! Weights of integers beside floats.
    wide = a * spread(a_scale(:, 1), 2, k)
    call attend_matmul(view(a), view(x), view(scaled), a_scale=view(a_scale))
    call attend_matmul(view(wide), view(x), view(want))
    call check(all(scaled == want), 'weights of integers')
    call attend_matmul(view(a), view(b), view(c), a_scale=view(a_scale), status=status, message=message)
    call expect(status, message, attend_invalid_value, &
                "a_scale: is given, but c's type is int32, not a floating-point type.")
  end subroutine

  subroutine of_messages()
    real(c_float), target :: x(4, 3), out(4, 3), one(1)
    real(c_double), target :: doubles(4, 3)
    integer(c_int8_t), target :: k(4, 3)
    integer(c_int16_t), target :: h(4, 3)
    integer(c_int32_t) :: status
    character(len=120) :: message
    x = 0
    out = 0
    one = 1
    doubles = 0
    k = 0
    h = 0
    call attend_attention(view(x), view(k), view(x), view(out), status=status, message=message)
    call expect(status, message, attend_null_pointer, "k_scale: is null, but required where k's type is int8.")
    call attend_attention(view(x), view(x), view(doubles), view(out), status=status, message=message)
    call expect(status, message, attend_invalid_dtype, &
                'v: is float64; float32, bfloat16, float16, int8 or float8_e4m3 is needed beside the other operands.')
    call attend_convert(view(x), view(out), scale=view(one), compute_scale=.true., status=status, message=message)
    call expect(status, message, attend_invalid_value, &
                "compute_scale: is true, but y's type is float32, not int8 or float8_e4m3.")
    call attend_convert(view(x), view(k), compute_scale=.true., status=status, message=message)
    call expect(status, message, attend_null_pointer, 'scale: is null, but required with compute_scale.')
    ! A type whose elements are of another size would reach outside the array.
    call attend_softmax(view(h, attend_i8), view(out), status=status, message=message)
    call check(attend_reason(status) == attend_invalid_dtype .and. message(1:3) == 'x: ', message)
    call attend_softmax(view(k, attend_bf16), view(out), status=status, message=message)
    call check(attend_reason(status) == attend_invalid_dtype .and. message(1:3) == 'x: ', message)
  end subroutine

  subroutine expect(status, message, reason, said)
    integer(c_int32_t), intent(in) :: status, reason
    character(len=*), intent(in) :: message, said
    call check(attend_reason(status) == reason .and. message == said, message)
  end subroutine

end program
