package attend

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestErrors(t *testing.T) {
	x := func(shape ...int) *Tensor[float32] {
		n := 1
		for _, extent := range shape {
			n *= extent
		}
		return Of(make([]float32, n), shape...)
	}
	q, k, v, out := x(2, 3, 4), x(2, 5, 4), x(2, 5, 4), x(2, 3, 4)
	with := func(change func(t *Tensor[float32])) *Tensor[float32] {
		c := &Tensor[float32]{q.Data, 0, append([]int{}, q.Shape...), append([]int{}, q.Stride...)}
		change(c)
		return c
	}
	attention := func(q, k, v, out *Tensor[float32], o AttentionOptions) error {
		return Attention(q, k, v, out, o)
	}
	var plain AttentionOptions
	cases := []struct {
		name, argument string
		want, got      error
	}{
		{"nil", "q", NullPointer, attention(nil, k, v, out, plain)},
		{"rank", "q", InvalidRank, attention(with(func(t *Tensor[float32]) { t.Shape, t.Stride = nil, nil }), k, v, out, plain)},
		{"stride length", "q", InvalidStride, attention(with(func(t *Tensor[float32]) { t.Stride = t.Stride[:1] }), k, v, out, plain)},
		{"negative extent", "q", InvalidShape, attention(with(func(t *Tensor[float32]) { t.Shape[1] = -1 }), k, v, out, plain)},
		{"behind the slice", "q", ErrOutOfRange, attention(with(func(t *Tensor[float32]) { t.Stride[1] = 9 }), k, v, out, plain)},
		{"before the slice", "q", ErrOutOfRange, attention(with(func(t *Tensor[float32]) { t.Stride[1] = -4 }), k, v, out, plain)},
		{"offset", "q", ErrOutOfRange, attention(with(func(t *Tensor[float32]) { t.Offset = 1 }), k, v, out, plain)},
		{"overflow", "q", ErrOutOfRange, attention(with(func(t *Tensor[float32]) { t.Stride[1] = math.MinInt / 4 }), k, v, out, plain)},
		{"shapes", "k", InvalidShape, attention(q, x(2, 5, 3), v, out, plain)},
		{"output stride", "out", InvalidStride, attention(q, k, v, with(func(t *Tensor[float32]) { t.Stride[1] = 0 }), plain)},
		{"overlap", "out", Overlap, attention(q, k, v, q, plain)},
		{"softcap", "options.softcap", InvalidValue, attention(q, k, v, out, AttentionOptions{Softcap: -1})},
		{"lengths", "options.kv_lengths", InvalidValue, attention(q, k, v, out, AttentionOptions{KVLengths: []int64{6}})},
		{"few lengths", "options.kv_lengths", InvalidShape, attention(x(2, 1, 3, 4), x(2, 1, 5, 4), x(2, 1, 5, 4), x(2, 1, 3, 4),
			AttentionOptions{KVLengths: []int64{5}})},
		{"first keys", "options.kv_first", InvalidValue, attention(q, k, v, out, AttentionOptions{KVFirst: []int64{6}})},
		{"few first keys", "options.kv_first", InvalidShape, attention(x(2, 1, 3, 4), x(2, 1, 5, 4), x(2, 1, 5, 4), x(2, 1, 3, 4),
			AttentionOptions{KVFirst: []int64{5}})},
		{"isa", "", UnknownISA, SetISA("mmx")},
		{"threads", "", InvalidValue, SetThreads(-1)},
		{"threads of 64 bits", "", InvalidValue, SetThreads(math.MinInt)},
		{"threads of 64 bits", "options.threads", InvalidValue, attention(q, k, v, out, AttentionOptions{Threads: math.MinInt})},
	}
	for _, c := range cases {
		var e *Error
		if !errors.Is(c.got, c.want) || !errors.As(c.got, &e) {
			t.Errorf("%s: %v", c.name, c.got)
			continue
		}
		if c.argument != "" && !strings.HasSuffix(e.Argument, c.argument) {
			t.Errorf("%s: argument %q instead of %q", c.name, e.Argument, c.argument)
		}
		if !strings.HasPrefix(c.got.Error(), "attend: ") || len(c.got.Error()) < 20 {
			t.Errorf("%s: says %q", c.name, c.got)
		}
	}
	w := Weights{WQ: x(4, 4), WK: x(4, 3), WV: x(4, 4)}
	for _, c := range []struct {
		said string
		got  error
	}{
		{"k: has 3 features, not q's 4", attention(q, x(2, 5, 3), v, out, plain)},
		{"k: has 3 heads; q's 2 heads are no multiple of them", attention(q, x(3, 5, 4), x(3, 5, 4), out, plain)},
		{"out: overlaps q's memory, but needs its own", attention(q, k, v, q, plain)},
		{"options.KVLengths: is 6 for batch 0, but must be 0 to 5",
			attention(q, k, v, out, AttentionOptions{KVLengths: []int64{6}})},
		{"options.Window: left and right are 1 and -2, but must be -1 or more",
			attention(q, k, v, out, AttentionOptions{Window: &Window{1, -2}})},
		{"options.ScoresStage: is 9, but must be 0, 1, 2 or 3",
			attention(q, k, v, out, AttentionOptions{Scores: x(2, 3, 5), ScoresStage: 9})},
		{"options.KVFirst: has 1 numbers for 2 batches", attention(x(2, 1, 3, 4), x(2, 1, 5, 4), x(2, 1, 5, 4),
			x(2, 1, 3, 4), AttentionOptions{KVFirst: []int64{5}})},
		{"q: has 0 dimensions, not 1 to 4",
			attention(with(func(t *Tensor[float32]) { t.Shape, t.Stride = nil, nil }), k, v, out, plain)},
		{"w.WK: has 3 rows, not w.WQ's 4", SelfAttention(x(3, 4), w, x(3, 4), plain)},
		{"options.Softcap: is -1.5, but must be finite and 0 or more",
			SelfAttention(x(3, 4), w, x(3, 4), AttentionOptions{Softcap: -1.5})},
		{"b: has 5 rows, not a's 4 columns", Matmul(x(4, 3), x(2, 5), x(2, 3), MatmulOptions{})},
		{"lseB: has 2 queries, not outA's 3", Merge(x(3, 4), x(3, 1), x(3, 4), x(2, 1), 0)},
		{"threads: is -1, but must be 0 or more", SetThreads(-1)},
	} {
		if c.got == nil || c.got.Error() != "attend: "+c.said {
			t.Errorf("says %q instead of %q", c.got, c.said)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("Of made a view of too few elements")
		}
	}()
	Of(make([]float32, 3), 2, 2)
}
