package attend

import (
	"math"
	"testing"
)

// Sequences of 3, 0 and 5 queries and 5, 0 and 12 keys, packed; pages have 4 columns, and what no key needs is no page.
var (
	queryStarts = []int64{0, 3, 3, 8}
	keyStarts   = []int64{0, 5, 5, 17}
	keyLengths  = []int64{5, 0, 12}
	pageTable   = []int32{4, 1, -1, -7, -1, 9, 0, 3, 2}
)

const servingD, servingHeads, servingKV = 8, 4, 2

// items a to b of an array [total, heads, D]: the tensor (D, b - a, heads).
func items[T Element](data []T, heads int, a, b int64) *Tensor[T] {
	return &Tensor[T]{Data: data, Offset: int(a) * heads * servingD, Shape: []int{servingD, int(b - a), heads},
		Stride: []int{1, heads * servingD, servingD}}
}

func equal[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s: element %d is %v instead of %v", what, i, got[i], want[i])
		}
	}
}

func testServing[T float](t *testing.T) {
	q, k, v := normals[T](8*servingHeads*servingD), normals[T](17*servingKV*servingD), normals[T](17*servingKV*servingD)
	allK, allV := items(k, servingKV, 0, 17), items(v, servingKV, 0, 17)
	want := make([]T, len(q))
	for b := 0; b < 3; b++ {
		qa, qb, ka, kb := queryStarts[b], queryStarts[b+1], keyStarts[b], keyStarts[b+1]
		must(t, Attention(items(q, servingHeads, qa, qb), items(k, servingKV, ka, kb), items(v, servingKV, ka, kb),
			items(want, servingHeads, qa, qb), AttentionOptions{Causal: BottomRight}))
	}
	packed := func(what string, k, v Operand, options AttentionOptions) {
		t.Helper()
		out := make([]T, len(q))
		options.Causal, options.QueryStarts = BottomRight, queryStarts
		must(t, Attention(items(q, servingHeads, 0, 8), k, v, items(out, servingHeads, 0, 8), options))
		equal(t, what, out, want)
	}
	packed("packed", allK, allV, AttentionOptions{KeyStarts: keyStarts})
	packed("with lengths", allK, allV, AttentionOptions{KeyStarts: keyStarts, KVLengths: keyLengths})

	pool := func() *Tensor[T] {
		return Of(make([]T, 5*servingKV*4*servingD), 5, servingKV, 4, servingD)
	}
	kPool, vPool, table := pool(), pool(), Of(pageTable, 3, 3)
	must(t, KVAppend(allK, allV, kPool, vPool, KVAppendOptions{Starts: keyStarts, Pages: table}))
	packed("pages", kPool, vPool, AttentionOptions{Pages: table, KVLengths: keyLengths})

	// A query for each sequence; its batch is that of the table, or of the sequences of packed keys.
	one := normals[T](3 * servingHeads * servingD)
	query := func(data []T) *Tensor[T] { return Of(data, 3, servingHeads, 1, servingD) }
	byPages, byStarts := make([]T, len(one)), make([]T, len(one))
	must(t, Attention(query(one), kPool, vPool, query(byPages), AttentionOptions{Pages: table, KVLengths: keyLengths}))
	must(t, Attention(query(one), allK, allV, query(byStarts), AttentionOptions{KeyStarts: keyStarts}))
	equal(t, "packed keys alone", byStarts, byPages)
}

func TestServing(t *testing.T) {
	t.Run("float32", testServing[float32])
	t.Run("float64", testServing[float64])
}

func TestKeysInPieces(t *testing.T) {
	const n, width = 600, 2 * (servingD + 2)
	q, k, v := normals[float32](8*servingHeads*servingD), normals[float32](n*servingKV*servingD), normals[float32](n*servingKV*servingD)
	run := func(a, b int64, o AttentionOptions) []float32 {
		out := make([]float32, len(q))
		o.Causal, o.QueryOffset, o.Window = TopLeft, 590, &Window{400, 0}
		must(t, Attention(items(q, servingHeads, 0, 8), items(k, servingKV, a, b), items(v, servingKV, a, b),
			items(out, servingHeads, 0, 8), o))
		return out
	}
	state := Of(make([]float32, servingHeads*8*width), servingHeads, 8, width)
	for i := range state.Data {
		state.Data[i] = float32(math.NaN())
	}
	first := run(0, 256, AttentionOptions{State: state, Pauses: true})
	second := run(256, 512, AttentionOptions{State: state, Pauses: true, Resumes: true, KeyOffset: 256})
	equal(t, "out of a first piece", first, make([]float32, len(q)))
	equal(t, "out of another", second, make([]float32, len(q)))
	equal(t, "keys in pieces", run(512, n, AttentionOptions{State: state, Resumes: true, KeyOffset: 512}), run(0, n, AttentionOptions{}))
}

func TestPackedSelfAttention(t *testing.T) {
	x, w := normals[float32](8*servingD), normals[float32](3*servingD*servingD)
	weight := func(i int) *Tensor[float32] {
		return Weight(w[i*servingD*servingD:], 1, servingD, servingD)
	}
	run := func(x []float32, starts []int64) []float32 {
		out, n := make([]float32, len(x)), len(x)/servingD
		must(t, SelfAttention(Of(x, n, servingD), Weights{WQ: weight(0), WK: weight(1), WV: weight(2)},
			Of(out, n, servingD), AttentionOptions{QueryStarts: starts, Causal: TopLeft}))
		return out
	}
	packed := run(x, queryStarts)
	equal(t, "first", packed[:3*servingD], run(x[:3*servingD], nil))
	equal(t, "last", packed[3*servingD:], run(x[3*servingD:], nil))
}

func rotaryTables() (cos, sin *Tensor[float32]) {
	cos, sin = Of(make([]float32, 20*servingD/2), 20, servingD/2), Of(make([]float32, 20*servingD/2), 20, servingD/2)
	for i := range cos.Data {
		angle := float64(i/(servingD/2)) * math.Pow(10, -float64(i%(servingD/2)))
		cos.Data[i], sin.Data[i] = float32(math.Cos(angle)), float32(math.Sin(angle))
	}
	return cos, sin
}

func TestRotary(t *testing.T) {
	cos, sin := rotaryTables()
	x, y, z := normals[float32](2*3*servingD), make([]float32, 2*3*servingD), make([]float32, 2*3*servingD)
	of := func(data []float32) *Tensor[float32] { return Of(data, 2, 1, 3, servingD) }
	positions := []int64{0, 1, 2, 7, 8, 9}
	for _, interleaved := range []bool{false, true} {
		must(t, Rotary(of(x), cos, sin, of(y), RotaryOptions{Interleaved: interleaved, Offsets: []int64{0, 7}}))
		for token, position := range positions {
			for i := 0; i < servingD/2; i++ {
				a, b := i, i+servingD/2
				if interleaved {
					a, b = 2*i, 2*i+1
				}
				x1, x2, c, s := x[token*servingD+a], x[token*servingD+b], at(cos, i, int(position)), at(sin, i, int(position))
				if d := math.Abs(float64(y[token*servingD+a]-(x1*c-x2*s))) +
					math.Abs(float64(y[token*servingD+b]-(x2*c+x1*s))); !(d < 1e-6) {
					t.Fatalf("item %d, pair %d: off by %v", token, i, d)
				}
			}
		}
		must(t, Rotary(of(x), cos, sin, of(z), RotaryOptions{Interleaved: interleaved, Positions: positions}))
		equal(t, "by positions", z, y)
		must(t, Rotary(of(z), cos, sin, of(z), RotaryOptions{Interleaved: interleaved, Positions: positions, Inverse: true}))
		for i := range x {
			if !(math.Abs(float64(z[i]-x[i])) < 1e-6) {
				t.Fatalf("back: element %d is %v instead of %v", i, z[i], x[i])
			}
		}
	}
}

func TestKVAppendWithScalesAndRotation(t *testing.T) {
	cos, sin := rotaryTables()
	positions := []int64{10, 0, 12}
	k := Of(normals[float32](3*servingD), 3, servingD)
	cache, scale := Of(make([]int8, 6*servingD), 6, servingD), Of(make([]float32, 6), 6, 1)
	must(t, KVAppend(k, nil, cache, nil, KVAppendOptions{Slots: []int64{4, -1, 0}, KScale: scale, ComputeKScale: true, Cos: cos,
		Sin: sin, Positions: positions}))
	must(t, Rotary(k, cos, sin, k, RotaryOptions{Positions: positions}))
	bytes, wanted := Of(make([]int8, 3*servingD), 3, servingD), Of(make([]float32, 3), 3, 1)
	must(t, Convert(k, bytes, ConvertOptions{Scale: wanted, ComputeScale: true}))
	equal(t, "slot 4", cache.Data[4*servingD:5*servingD], bytes.Data[:servingD])
	equal(t, "slot 0", cache.Data[:servingD], bytes.Data[2*servingD:])
	equal(t, "scales", scale.Data, []float32{wanted.Data[2], 0, 0, 0, wanted.Data[0], 0})
}

func TestErrorsOfServing(t *testing.T) {
	x := Of(make([]float32, 6*servingD), 6, servingD)
	attention := func(o AttentionOptions) error {
		return Attention(x, x, x, Of(make([]float32, 6*servingD), 6, servingD), o)
	}
	half := Of(make([]float32, 6*servingD/2), 6, servingD/2)
	rotary := func(o RotaryOptions) error { return Rotary(x, half, half, x, o) }
	cache := Of(make([]float32, 9*servingD), 9, servingD)
	appended := func(o KVAppendOptions) error { return KVAppend(x, x, cache, cache, o) }
	keys := func(o KVAppendOptions) error { return KVAppend(x, nil, cache, nil, o) }
	scale := Of(make([]float32, 9), 9, 1)
	for _, c := range []struct {
		said string
		got  error
	}{
		{"options.QueryStarts: ends with 5, but must end with 6, the number of packed items",
			attention(AttentionOptions{QueryStarts: []int64{0, 5}})},
		{"options.QueryStarts: has 1 number, but sequences have a beginning and an end",
			attention(AttentionOptions{QueryStarts: []int64{0}})},
		{"options.KeyStarts: has 2 numbers for 2 sequences and their end",
			attention(AttentionOptions{QueryStarts: []int64{0, 2, 6}, KeyStarts: []int64{0, 6}})},
		{"options.KeyStarts: falls from 4 to 3 at sequence 1, but must never decrease",
			attention(AttentionOptions{KeyStarts: []int64{0, 4, 3}})},
		{"options.KVLengths: has 1 numbers for 2 batches",
			attention(AttentionOptions{QueryStarts: []int64{0, 2, 6}, KeyStarts: []int64{0, 4, 6}, KVLengths: []int64{4}})},
		{"options.KVLengths: is null, but required where keys lie in pages",
			attention(AttentionOptions{Pages: Of([]int32{0}, 1, 1)})},
		{"options.Pages: has 3 for page 0 of batch 0, but the pool has 1 pages, counted from 0",
			attention(AttentionOptions{Pages: Of([]int32{3}, 1, 1), KVLengths: []int64{6}})},
		{"options.KeyOffset: is 255, but must be a multiple of 256, 0 or more", attention(AttentionOptions{KeyOffset: 255})},
		{"options.State: is null, but required with Pauses and Resumes", attention(AttentionOptions{Resumes: true})},
		{"options.Causal: is BottomRight, but where the keys end is not known to one of several calls",
			attention(AttentionOptions{KeyOffset: 256, Causal: BottomRight})},
		{"options.Positions: is 6 for item 5, but cos has 6 positions, counted from 0",
			rotary(RotaryOptions{Positions: []int64{0, 1, 2, 3, 4, 6}})},
		{"options.Positions: has 1 numbers for 6 items", rotary(RotaryOptions{Positions: []int64{0}})},
		{"options.RotaryDims: is 3 for 8 features, but must be even and at most as many, 0 for all of them",
			rotary(RotaryOptions{RotaryDims: 3})},
		{"options.Slots: has slot 2 twice, for two keys", keys(KVAppendOptions{Slots: []int64{0, 1, 2, 3, 2, 5}})},
		{"options.Slots: has 1 numbers for 6 items", keys(KVAppendOptions{Slots: []int64{0}})},
		{"options.Offsets: is 4 for batch 0 of 6 new keys, but a sequence has room for 9", keys(KVAppendOptions{Offsets: []int64{4}})},
		{"options.Interleaved: is set without cos and sin", keys(KVAppendOptions{Interleaved: true})},
		{"options.ComputeKScale: is set, but kCache's type is float32, not int8 or float8_e4m3",
			keys(KVAppendOptions{KScale: scale, ComputeKScale: true})},
		{"options.ComputeVScale: is set without v", keys(KVAppendOptions{ComputeVScale: true})},
		{"options.Sin: is null, but cos is given", keys(KVAppendOptions{Cos: half})},
		{"vCache: overlaps kCache's memory, but needs its own", appended(KVAppendOptions{})},
	} {
		if c.got == nil || c.got.Error() != "attend: "+c.said {
			t.Errorf("says %q instead of %q", c.got, c.said)
		}
	}
	endless, o := &Tensor[float32]{Shape: []int{1, math.MaxInt, 1, 3}}, newOperands()
	if o.perItem("options.slots", []int64{0}, endless); o.err == nil {
		t.Error("one slot for more items than can be counted")
	}
}
