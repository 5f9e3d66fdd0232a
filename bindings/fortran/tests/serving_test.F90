! Packed sequences and paged caches: each sequence has the bits that it has alone. Rotary and kv_append.
#include "checks.inc"

program serving_test
  use, intrinsic :: iso_c_binding
  use attend
  use checks, only: check
  implicit none

  ! Three sequences, of which one is empty; pages have 4 columns, and what no key needs is no page.
  integer, parameter :: d = 8, heads = 4, kv = 2, width = 4
  integer(c_int64_t), parameter :: query_starts(4) = [0, 3, 3, 8], key_starts(4) = [0, 5, 5, 17], lengths(3) = [5, 0, 12]
  integer(c_int32_t), target :: pages(3, 3) = reshape([4, 1, -1, -7, -1, 9, 0, 3, 2], [3, 3])

  call of_attention()
  call of_pieces()
  call of_self_attention()
  call of_rotary()
  call of_scales()
  call of_messages()
  print '(a)', 'all of serving passed'

contains

  subroutine of_attention()
    real(c_float), target :: q(d, 8, heads), k(d, 17, kv), v(d, 17, kv), want(d, 8, heads), out(d, 8, heads)
    real(c_float), target :: k_pool(d, width, kv, 0:4), v_pool(d, width, kv, 0:4), one(d, 1, heads, 3), by_page(d, 1, heads, 3)
    integer :: b
    call random_number(q)
    call random_number(k)
    call random_number(v)
    do b = 1, 3
      call attend_attention(view(q(:, query_starts(b) + 1:query_starts(b + 1), :)), &
                            view(k(:, key_starts(b) + 1:key_starts(b + 1), :)), &
                            view(v(:, key_starts(b) + 1:key_starts(b + 1), :)), &
                            view(want(:, query_starts(b) + 1:query_starts(b + 1), :)), causal=attend_causal_bottom_right)
    end do
    out = 7
    call attend_attention(view(q), view(k), view(v), view(out), query_starts=query_starts, key_starts=key_starts, &
                          causal=attend_causal_bottom_right)
    call check(all(out == want), 'packed')
    out = 7
    call attend_attention(view(q), view(k), view(v), view(out), query_starts=query_starts, key_starts=key_starts, &
                          kv_lengths=lengths, causal=attend_causal_bottom_right)
    call check(all(out == want), 'packed, with lengths')

    k_pool = huge(k_pool)
    v_pool = huge(v_pool)
    call attend_kv_append(view(k), view(v), view(k_pool), view(v_pool), starts=key_starts, pages=view(pages))
    out = 7
    call attend_attention(view(q), view(k_pool), view(v_pool), view(out), query_starts=query_starts, pages=view(pages), &
                          kv_lengths=lengths, causal=attend_causal_bottom_right)
    call check(all(out == want), 'pages')

    ! A query for each sequence; the batch is that of the table, or of the sequences of packed keys.
    call random_number(one)
    call attend_attention(view(one), view(k_pool), view(v_pool), view(by_page), pages=view(pages), kv_lengths=lengths)
    call attend_attention(view(one), view(k), view(v), view(one), key_starts=key_starts, status=b)
    call check(attend_reason(b) == attend_overlap, 'one output too many')
    block
      real(c_float), target :: by_start(d, 1, heads, 3)
      call attend_attention(view(one), view(k), view(v), view(by_start), key_starts=key_starts)
      call check(all(by_start == by_page), 'packed keys alone')
    end block
  end subroutine

  subroutine of_pieces()
    integer, parameter :: n = 600
    real(c_float), target :: q(d, 8, heads), k(d, n, kv), v(d, n, kv), want(d, 8, heads), out(d, 8, heads)
    real(c_float), target :: state(2 * (d + 2), 8, heads)
    integer :: begin, end
    call random_number(q)
    call random_number(k)
    call random_number(v)
    call attend_attention(view(q), view(k), view(v), view(want), causal=attend_causal_top_left, query_offset=590_c_int64_t)
    state = huge(state)
    do begin = 0, n, 256
      end = min(n, begin + 256)
      out = 7
      call attend_attention(view(q), view(k(:, begin + 1:end, :)), view(v(:, begin + 1:end, :)), view(out), &
                            causal=attend_causal_top_left, query_offset=590_c_int64_t, state=view(state), pauses=end < n, &
                            resumes=begin > 0, key_offset=int(begin, c_int64_t))
      call check(end == n .or. all(out == 7), 'out of a piece that is not the last')
    end do
    call check(all(out == want), 'keys in pieces')
  end subroutine

  subroutine of_self_attention()
    real(c_float), target :: x(d, 8), w(d, d, 3), packed(d, 8), alone(d, 8)
    integer :: b
    call random_number(x)
    call random_number(w)
    call attend_self_attention(view(x), view(w(:, :, 1)), view(w(:, :, 2)), view(w(:, :, 3)), view(packed), &
                               query_starts=query_starts, causal=attend_causal_top_left)
    do b = 1, 3
      call attend_self_attention(view(x(:, query_starts(b) + 1:query_starts(b + 1))), view(w(:, :, 1)), view(w(:, :, 2)), &
                                 view(w(:, :, 3)), view(alone(:, query_starts(b) + 1:query_starts(b + 1))), &
                                 causal=attend_causal_top_left)
    end do
    call check(all(packed == alone), 'packed self-attention')
  end subroutine

  ! For positions 0 to 19.
  subroutine tables(cosines, sines)
    real(c_float), intent(out) :: cosines(d / 2, 0:19), sines(d / 2, 0:19)
    integer :: i, j
    do j = 0, 19
      cosines(:, j) = [(real(cos(j * 10d0**(1 - i)), c_float), i=1, d / 2)]
      sines(:, j) = [(real(sin(j * 10d0**(1 - i)), c_float), i=1, d / 2)]
    end do
  end subroutine

  subroutine of_rotary()
    real(c_float), target :: x(d, 3, 1, 2), y(d, 3, 1, 2), z(d, 3, 1, 2), cosines(d / 2, 0:19), sines(d / 2, 0:19)
    real(c_float) :: c(d / 2), s(d / 2)
    integer, parameter :: positions(3, 2) = reshape([0, 1, 2, 7, 8, 9], [3, 2])
    integer :: i, b, step
    call tables(cosines, sines)
    call random_number(x)
    do step = 1, 2 ! halves, neighbours
      call attend_rotary(view(x), view(cosines), view(sines), view(y), offsets=[0_c_int64_t, 7_c_int64_t], &
                         interleaved=step == 2)
      do b = 1, 2
        do i = 1, 3
          c = cosines(:, positions(i, b))
          s = sines(:, positions(i, b))
          if (step == 1) then
            call check(all(abs(y(:d / 2, i, 1, b) - (x(:d / 2, i, 1, b) * c - x(d / 2 + 1:, i, 1, b) * s)) < 1e-6), 'halves')
            call check(all(abs(y(d / 2 + 1:, i, 1, b) - (x(d / 2 + 1:, i, 1, b) * c + x(:d / 2, i, 1, b) * s)) < 1e-6), 'halves')
          else
            call check(all(abs(y(1::2, i, 1, b) - (x(1::2, i, 1, b) * c - x(2::2, i, 1, b) * s)) < 1e-6), 'neighbours')
            call check(all(abs(y(2::2, i, 1, b) - (x(2::2, i, 1, b) * c + x(1::2, i, 1, b) * s)) < 1e-6), 'neighbours')
          end if
        end do
      end do
      call attend_rotary(view(x), view(cosines), view(sines), view(z), interleaved=step == 2, &
                         positions=int(reshape(positions, [6]), c_int64_t))
      call check(all(z == y), 'by positions')
      call attend_rotary(view(z), view(cosines), view(sines), view(z), offsets=[0_c_int64_t, 7_c_int64_t], &
                         interleaved=step == 2, inverse=.true.)
      call check(all(abs(z - x) < 1e-6), 'and back')
    end do
  end subroutine

  ! Keys of a cache in 8 bits are those of a rotation, then of a conversion.
  subroutine of_scales()
    real(c_float), target :: k(d, 3), cosines(d / 2, 0:19), sines(d / 2, 0:19), scale(1, 0:5), wanted(1, 3)
    integer(c_int8_t), target :: cache(d, 0:5), bytes(d, 3)
    integer(c_int64_t), parameter :: positions(3) = [10, 0, 12]
    call tables(cosines, sines)
    call random_number(k)
    cache = 7
    scale = 7
    call attend_kv_append(k=view(k), k_cache=view(cache), slots=[4_c_int64_t, -1_c_int64_t, 0_c_int64_t], k_scale=view(scale), &
                          compute_k_scale=.true., cos=view(cosines), sin=view(sines), positions=positions)
    call attend_rotary(view(k), view(cosines), view(sines), view(k), positions=positions)
    call attend_convert(view(k), view(bytes), scale=view(wanted), compute_scale=.true.)
    call check(all(cache(:, 4) == bytes(:, 1)) .and. all(cache(:, 0) == bytes(:, 3)), 'keys in slots')
    call check(scale(1, 4) == wanted(1, 1) .and. scale(1, 0) == wanted(1, 3), 'their scales')
    call check(all(cache(:, [1, 2, 3, 5]) == 7) .and. all(scale(1, [1, 2, 3, 5]) == 7), 'other slots')
  end subroutine

  subroutine of_messages()
    real(c_float), target :: x(d, 6), y(d, 6), half(d / 2, 6), cache(d, 9), scale(1, 9)
    integer(c_int32_t), target :: one_page(1, 1)
    integer(c_int64_t), parameter :: none(0) = [integer(c_int64_t) ::], four(1) = 4
    integer(c_int32_t) :: status
    character(len=120) :: message
    x = 0
    y = 0
    half = 0
    cache = 0
    scale = 0
    call attention(x, [0, 5], said='query_starts: ends with 5, but must end with 6, the number of packed items.')
    call attention(x, [0], said='query_starts: has 1 numbers, but sequences have a beginning and an end.')
    call attention(x, [0, 2, 6], [0, 6], said='key_starts: has 2 numbers for 2 sequences and their end.')
    call attention(x, [0, 2, 6], [0, 4, 3], said='key_starts: falls from 4 to 3 at sequence 1, but must never decrease.')
    call attention(x, [0, 2, 6], [0, 4, 6], [4], said='kv_lengths: has 1 numbers for 2 batches.')
    one_page = 3
    call attend_attention(view(x), view(x), view(x), view(y), pages=view(one_page), status=status, message=message)
    call expect(status, message, 'kv_lengths: is null, but required where keys lie in pages.')
    call attend_attention(view(x), view(x), view(x), view(y), pages=view(one_page), kv_lengths=four, status=status, &
                          message=message)
    call expect(status, message, 'pages: has 3 for page 0 of batch 0, but the pool has 1 pages, counted from 0.')
    call attend_attention(view(x), view(x), view(x), view(y), key_offset=255_c_int64_t, status=status, message=message)
    call expect(status, message, 'key_offset: is 255, but must be a multiple of 256, 0 or more.')
    call attend_attention(view(x), view(x), view(x), view(y), resumes=.true., status=status, message=message)
    call expect(status, message, 'state: is null, but required with pauses and resumes.')
    call attend_attention(view(x), view(x), view(x), view(y), key_offset=256_c_int64_t, causal=attend_causal_bottom_right, &
                          status=status, message=message)
    call expect(status, message, &
                'causal: is attend_causal_bottom_right, but where the keys end is not known to one of several calls.')
    call attend_self_attention(view(x), view(x(:, :4)), view(x(:, :4)), view(x(:, :4)), view(y), query_starts=four, status=status, &
                               message=message)
    call expect(status, message, 'query_starts: has 1 numbers, but sequences have a beginning and an end.')

    call attend_rotary(view(x), view(half), view(half), view(y), positions=int([0, 1, 2, 3, 4, 6], c_int64_t), status=status, &
                       message=message)
    call expect(status, message, 'positions: is 6 for item 5, but cos has 6 positions, counted from 0.')
    call attend_rotary(view(x), view(half), view(half), view(y), positions=four, status=status, message=message)
    call expect(status, message, 'positions: has 1 numbers for 6 items.')
    call attend_rotary(view(x), view(half), view(half), view(y), offsets=none, status=status, message=message)
    call expect(status, message, 'offsets: has 0 numbers for 1 batches.')
    call attend_rotary(view(x), view(half), view(half), view(y), rotary_dims=3, status=status, message=message)
    call expect(status, message, 'rotary_dims: is 3 for 8 features, but must be even and at most as many, 0 for all of them.')

    call attend_kv_append(k=view(x), k_cache=view(cache), slots=int([0, 1, 2, 3, 2, 5], c_int64_t), status=status, message=message)
    call expect(status, message, 'slots: has slot 2 twice, for two keys.')
    call attend_kv_append(k=view(x), k_cache=view(cache), slots=four, status=status, message=message)
    call expect(status, message, 'slots: has 1 numbers for 6 items.')
    call attend_kv_append(k=view(x), k_cache=view(cache), offsets=four, status=status, message=message)
    call expect(status, message, 'offsets: is 4 for batch 0 of 6 new keys, but a sequence has room for 9.')
    call attend_kv_append(k=view(x), k_cache=view(cache), interleaved=.true., status=status, message=message)
    call expect(status, message, 'interleaved: is true without cos and sin.')
    call attend_kv_append(k=view(x), k_cache=view(cache), cos=view(half), status=status, message=message)
    call expect(status, message, 'sin: is null, but cos is given.')
    call attend_kv_append(k=view(x), k_cache=view(cache), k_scale=view(scale), compute_k_scale=.true., status=status, &
                          message=message)
    call expect(status, message, "compute_k_scale: is true, but k_cache's type is float32, not int8 or float8_e4m3.")
    call attend_kv_append(view(x), view(x), view(cache), view(cache), status=status, message=message)
    call expect(status, message, "v_cache: overlaps k_cache's memory, but needs its own.")
    call attend_kv_append(view(x), view(x), view(cache), status=status, message=message)
    call check(attend_reason(status) == attend_null_pointer .and. message(1:8) == 'v_cache:', message)
    call check(all(cache == 0) .and. all(y == 0), 'nothing is written when a call is refused')
  end subroutine

  subroutine attention(x, query_starts, key_starts, kv_lengths, said)
    real(c_float), intent(in), target :: x(:, :)
    integer, intent(in) :: query_starts(:)
    integer, intent(in), optional :: key_starts(:), kv_lengths(:)
    character(len=*), intent(in) :: said
    real(c_float), target :: y(d, 6)
    integer(c_int64_t), allocatable, target :: keys(:), numbers(:) ! not allocated is absent
    integer(c_int32_t) :: status
    character(len=120) :: message
    if (present(key_starts)) keys = key_starts
    if (present(kv_lengths)) numbers = kv_lengths
    y = 7
    call attend_attention(view(x), view(x), view(x), view(y), query_starts=int(query_starts, c_int64_t), key_starts=keys, &
                          kv_lengths=numbers, status=status, message=message)
    call expect(status, message, said)
    call check(all(y == 7), 'nothing is written when a call is refused')
  end subroutine

  subroutine expect(status, message, said)
    integer(c_int32_t), intent(in) :: status
    character(len=*), intent(in) :: message, said
    call check(status /= 0 .and. message == said, trim(message)//' instead of '//said)
  end subroutine

end program
