package attend

import (
	"errors"
	"math"
	"math/rand"
	"testing"
)

// narrowed gives numbers of a narrow type, and the same in float32.
func narrowed[T interface {
	Element
	Float32() float32
}](n int, to func(float32) T) ([]T, []float32) {
	narrow, wide := make([]T, n), make([]float32, n)
	for i := range narrow {
		narrow[i] = to(float32(rand.NormFloat64()))
		wide[i] = narrow[i].Float32()
	}
	return narrow, wide
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// same compares with what float32 gives, rounded once.
func same[T comparable](t *testing.T, got []T, wide []float32, to func(float32) T) {
	t.Helper()
	for i, x := range wide {
		if got[i] != to(x) {
			t.Fatalf("element %d: %v instead of %v", i, got[i], to(x))
		}
	}
}

func bits(x float32) uint32 { return math.Float32bits(x) }

func sameBits(t *testing.T, got, want []float32) {
	t.Helper()
	all := make([]uint32, len(got))
	for i, x := range got {
		all[i] = bits(x)
	}
	same(t, all, want, bits)
}

func TestEveryOperandHasItsType(t *testing.T) {
	const h, nq, nk, d = 2, 5, 300, 12
	q, wideQ := narrowed(h*nq*d, ToBFloat16)
	k, wideK := narrowed(h*nk*d, ToFloat16)
	v := normals[float32](h * nk * d)
	bias, wideBias := narrowed(nq*nk, ToFloat16)
	out, lse := make([]Float16, h*nq*d), make([]float32, h*nq)
	wideOut, wideLSE := make([]float32, h*nq*d), make([]float32, h*nq)
	must(t,
		Attention(Of(q, h, nq, d), Of(k, h, nk, d), Of(v, h, nk, d), Of(out, h, nq, d),
			AttentionOptions{Bias: Of(bias, nq, nk), LSE: Of(lse, h, nq, 1)}),
		Attention(Of(wideQ, h, nq, d), Of(wideK, h, nk, d), Of(v, h, nk, d), Of(wideOut, h, nq, d),
			AttentionOptions{Bias: Of(wideBias, nq, nk), LSE: Of(wideLSE, h, nq, 1)}))
	same(t, out, wideOut, ToFloat16)
	sameBits(t, lse, wideLSE)
}

func TestNarrowTypesOfOtherFunctions(t *testing.T) {
	a, wideA := narrowed(7*600, ToFloat16)
	b, wideB := narrowed(600*5, ToBFloat16)
	c, wideC := make([]BFloat16, 35), make([]float32, 35)
	must(t, Matmul(Weight(a, 1, 7, 600), Of(b, 5, 600), Of(c, 5, 7), MatmulOptions{}),
		Matmul(Weight(wideA, 1, 7, 600), Of(wideB, 5, 600), Of(wideC, 5, 7), MatmulOptions{}))
	same(t, c, wideC, ToBFloat16)

	x, wideX := narrowed(6*8, ToBFloat16)
	y, want := make([]float32, 48), make([]float32, 48)
	inPlace := append([]BFloat16{}, x...)
	must(t, Softmax(Of(x, 6, 8), Of(y, 6, 8), SoftmaxOptions{}), Softmax(Of(wideX, 6, 8), Of(want, 6, 8), SoftmaxOptions{}),
		Softmax(Of(inPlace, 6, 8), Of(inPlace, 6, 8), SoftmaxOptions{}))
	sameBits(t, y, want)
	same(t, inPlace, want, ToBFloat16)

	w, wideW := narrowed(8*8, ToFloat16)
	out, wideOut := make([]BFloat16, 48), make([]float32, 48)
	must(t, SelfAttention(Of(x, 6, 8), Weights{WQ: Weight(w, 1, 8, 8), WK: Weight(wideW, 1, 8, 8), WV: Weight(w, 1, 8, 8)},
		Of(out, 6, 8), AttentionOptions{}),
		SelfAttention(Of(wideX, 6, 8), Weights{WQ: Weight(wideW, 1, 8, 8), WK: Weight(wideW, 1, 8, 8), WV: Weight(wideW, 1, 8, 8)},
			Of(wideOut, 6, 8), AttentionOptions{}))
	same(t, out, wideOut, ToBFloat16)

	outA, wideOutA := narrowed(6*8, ToFloat16)
	lse, lseA, wideLSE := make([]float32, 6), make([]float32, 6), make([]float32, 6)
	must(t, Merge(Of(outA, 6, 8), Of(lseA, 6, 1), Of(x, 6, 8), Of(lse, 6, 1), 0),
		Merge(Of(wideOutA, 6, 8), Of(wideLSE, 6, 1), Of(wideX, 6, 8), Of(lse, 6, 1), 0))
	same(t, outA, wideOutA, ToFloat16)
}

func TestNativeDot(t *testing.T) {
	numbers := func(n int, of func() float32) []BFloat16 {
		x := make([]BFloat16, n)
		for i := range x {
			x[i] = ToBFloat16(of())
		}
		return x
	}
	product := func(a, b []BFloat16, native bool) []float32 {
		t.Helper()
		c := make([]float32, 64*4)
		must(t, Matmul(Weight(a, 1, 64, 96), Of(b, 4, 96), Of(c, 4, 64), MatmulOptions{NativeDot: native}))
		return c
	}
	small := func() float32 { return float32(rand.Intn(19) - 9) }
	a, b := numbers(64*96, small), numbers(96*4, small)
	sameBits(t, product(a, b, true), product(a, b, false))

	// Of four columns on every CPU that has them, the dot products count what lies below the smallest normal number as 0.
	tiny := func() float32 { return 0x1p-70 }
	a, b = numbers(64*96, tiny), numbers(96*4, tiny)
	sum := make([]float32, 64*4)
	for i := range sum {
		sum[i] = 96 * 0x1p-140
	}
	sameBits(t, product(a, b, false), sum)
	if ISA() == "avx512bf16" {
		sum = make([]float32, 64*4)
	}
	sameBits(t, product(a, b, true), sum)
}

// Scales of powers of two, with which it makes no difference when they are multiplied; below one, so that no weight is
// subnormal, whose products are rounded.
func TestKeysAndValuesOfEightBits(t *testing.T) {
	const n, d = 40, 8
	q := Of(normals[float32](3*d), 3, d)
	run := func(k, v Operand, options AttentionOptions) []float32 {
		t.Helper()
		out := make([]float32, 3*d)
		must(t, Attention(q, k, v, Of(out, 3, d), options))
		return out
	}
	k, v := make([]int8, n*d), make([]int8, n*d)
	for i := range k {
		k[i], v[i] = int8(rand.Intn(255)-127), int8(rand.Intn(255)-127)
	}
	power := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(math.Ldexp(1, -5-rand.Intn(5)))
		}
		return x
	}
	scales := []*Tensor[float32]{Of(power(n), n, 1), Of(power(d), 1, d), Of(power(1), 1, 1)}
	scaled := func(x []int8, scale *Tensor[float32]) *Tensor[float32] {
		wide := make([]float32, n*d)
		for i := range wide {
			wide[i] = float32(x[i]) * at(scale, i%d, i/d)
		}
		return Of(wide, n, d)
	}
	for _, kScale := range scales {
		for _, vScale := range scales {
			got := run(Of(k, n, d), Of(v, n, d), AttentionOptions{KScale: kScale, VScale: vScale})
			sameBits(t, got, run(scaled(k, kScale), scaled(v, vScale), AttentionOptions{}))
		}
	}
	x, wide := narrowed(n*d, ToFloat8E4M3)
	eighth := make([]float32, n*d)
	for i := range eighth {
		eighth[i] = wide[i] / 8
	}
	got := run(Of(x, n, d), Of(x, n, d), AttentionOptions{KScale: Of([]float32{0.125}, 1)})
	sameBits(t, got, run(Of(eighth, n, d), Of(wide, n, d), AttentionOptions{}))
}

func converted[Y, X Element](t *testing.T, x []X) []Y {
	t.Helper()
	y := make([]Y, len(x))
	must(t, Convert(Of(x, len(x)), Of(y, len(y)), ConvertOptions{}))
	return y
}

// The helpers, against the library: every number of a narrow type, and what rounds to it from either side.
func testFormat[T interface {
	Element
	~uint8 | ~uint16
	Float32() float32
}](t *testing.T, to func(float32) T) {
	all := make([]T, int(^T(0))+1)
	for i := range all {
		all[i] = T(i)
	}
	wide := converted[float32](t, all)
	var edges []float32
	infinity := float32(math.Inf(1))
	for i, x := range wide {
		if got := all[i].Float32(); bits(got) != bits(x) && got == got {
			t.Fatalf("%#x is %v instead of %v", i, got, x)
		}
		if i+1 < len(wide) {
			middle := (x + wide[i+1]) / 2
			edges = append(edges, x, middle, math.Nextafter32(middle, infinity), math.Nextafter32(middle, -infinity))
		}
	}
	edges = append(edges, math.MaxFloat32, -math.MaxFloat32, math.SmallestNonzeroFloat32, 464, 465, infinity, -infinity)
	for i, want := range converted[T](t, edges) {
		x := edges[i]
		if got := to(x); got != want && x == x || (x != x && got.Float32() == got.Float32()) {
			t.Fatalf("%v becomes %#x instead of %#x", x, got, want)
		}
	}
}

func TestConvert(t *testing.T) {
	t.Run("BFloat16", func(t *testing.T) { testFormat(t, ToBFloat16) })
	t.Run("Float16", func(t *testing.T) { testFormat(t, ToFloat16) })
	t.Run("Float8E4M3", func(t *testing.T) { testFormat(t, ToFloat8E4M3) })
	for bits, want := range map[Float8E4M3]float32{0x38: 1, 0x01: 1. / 512, 0xfe: -448, 0x79: 288} {
		if bits.Float32() != want || ToFloat8E4M3(want) != bits {
			t.Errorf("%#x is %v instead of %v", bits, bits.Float32(), want)
		}
	}
	if got := ToFloat16(65504.0); got != 0x7bff || ToFloat16(1) != 0x3c00 || ToBFloat16(1) != 0x3f80 {
		t.Error(got)
	}
	ints := converted[int8](t, []float64{1.5, 2.5, -300, math.NaN()})
	for i, want := range []int8{2, 2, -128, 0} {
		if ints[i] != want {
			t.Errorf("int8 %d instead of %d", ints[i], want)
		}
	}
	if got := converted[uint8](t, []float32{-1, 255.5}); got[0] != 0 || got[1] != 255 {
		t.Error(got)
	}
	if got := converted[int32](t, []float32{math.MaxFloat32, -7}); got[0] != math.MaxInt32 || got[1] != -7 {
		t.Error(got)
	}

	// A scale for each of 10 items is computed; given, it brings the numbers back.
	x, y, back, scale := normals[float32](1000), make([]int8, 1000), make([]float32, 1000), make([]float32, 10)
	must(t, Convert(Of(x, 10, 100), Of(y, 10, 100), ConvertOptions{Scale: Of(scale, 10, 1), ComputeScale: true}),
		Convert(Of(y, 10, 100), Of(back, 10, 100), ConvertOptions{Scale: Of(scale, 10, 1), Threads: AllThreads}))
	for row, scale := range scale {
		most := float32(0)
		for i := row * 100; i < row*100+100; i++ {
			most = float32(math.Max(float64(most), math.Abs(float64(x[i]))))
			if math.Abs(float64(float32(y[i])-x[i]/scale)) > 0.5 || back[i] != scale*float32(y[i]) {
				t.Fatalf("%v became %d and %v with scale %v", x[i], y[i], back[i], scale)
			}
		}
		if scale != most/127 {
			t.Fatalf("scale %v instead of %v", scale, most/127)
		}
	}
}

func TestTypeErrors(t *testing.T) {
	x, k, out := Of(make([]float32, 12), 3, 4), Of(make([]int8, 20), 5, 4), Of(make([]float32, 12), 3, 4)
	f8, one := Of(make([]Float8E4M3, 20), 5, 4), Of([]float32{1}, 1)
	w := Weights{WQ: Of(make([]float32, 16), 4, 4), WK: Of(make([]float32, 16), 4, 4), WV: Of(make([]float32, 16), 4, 4)}
	for _, c := range []struct {
		want error
		said string
		got  error
	}{
		{NullPointer, "options.KScale: is null, but required where k's type is int8", Attention(x, k, f8, out, AttentionOptions{})},
		{InvalidDtype, "v: is float64; float32, bfloat16, float16, int8 or float8_e4m3 is needed beside the other operands",
			Attention(x, f8, Of(make([]float64, 20), 5, 4), out, AttentionOptions{})},
		{InvalidValue, "options.ComputeScale: is set, but y's type is float32, not int8 or float8_e4m3",
			Convert(x, out, ConvertOptions{Scale: one, ComputeScale: true})},
		{NullPointer, "options.Scale: is null, but required with ComputeScale",
			Convert(x, Of(make([]int8, 12), 3, 4), ConvertOptions{ComputeScale: true})},
		{InvalidValue, "options.KScale: is given, but keys and values have no scales here",
			SelfAttention(x, w, out, AttentionOptions{KScale: one})},
		{NullPointer, "x: is null, but required", Softmax((*Tensor[BFloat16])(nil), out, SoftmaxOptions{})},
	} {
		if !errors.Is(c.got, c.want) || (c.got.Error() != "attend: "+c.said) {
			t.Errorf("says %q instead of %q", c.got, c.said)
		}
	}
}
