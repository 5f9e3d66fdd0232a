package attend

import (
	"errors"
	"math"
	"math/rand"
	"testing"
)

// Products of 8-bit integers: exact sums, and scales of powers of two, with which it is the float32 product's.
func TestMatmulOfIntegers(t *testing.T) {
	const m, k, n = 7, 1100, 5
	a, b := Weight(make([]int8, m*k), 1, m, k), Of(make([]uint8, n*k), n, k)
	for i := range a.Data {
		a.Data[i] = int8(rand.Intn(256) - 128)
	}
	for i := range b.Data {
		b.Data[i] = uint8(rand.Intn(256))
	}
	perRow := func(i int) []int { return []int{i, 1} }
	aZero := &Tensor[int32]{Data: []int32{-9, -6, -3, 0, 3, 6, 9}, Shape: perRow(m), Stride: []int{1, 0}}
	bZero, bias := Of([]int32{128}, 1), Of([]int32{0, 1000, 2000, 3000, 4000, 5000, 6000}, m)
	sum := func(i, j int) (total int32) {
		for l := 0; l < k; l++ {
			total += (int32(at(a, i, l)) - aZero.Data[i]) * (int32(at(b, l, j)) - bZero.Data[0])
		}
		return total
	}
	exact := Of(make([]int32, m*n), n, m)
	must(t, Matmul(a, b, exact, MatmulOptions{AZero: aZero, BZero: bZero, Bias: bias}))

	aScale := &Tensor[float32]{Data: make([]float32, m), Shape: perRow(m), Stride: []int{1, 0}}
	for i := range aScale.Data {
		aScale.Data[i] = float32(math.Ldexp(1, i-9))
	}
	bScale := Of([]float32{1, 0.5, 0.25, 0.125, 2}, n, 1)
	scaled := Of(make([]float32, m*n), n, m)
	options := MatmulOptions{AZero: aZero, BZero: bZero, AScale: aScale, BScale: bScale}
	must(t, Matmul(a, b, scaled, options))
	for i := 0; i < m; i++ {
		for j := 0; j < n; j++ {
			if got, want := at(exact, i, j), sum(i, j)+bias.Data[i]; got != want {
				t.Fatalf("(%d, %d): %d instead of %d", i, j, got, want)
			}
			if got, want := at(scaled, i, j), aScale.Data[i]*bScale.Data[j]*float32(sum(i, j)); got != want {
				t.Fatalf("(%d, %d): %v instead of %v", i, j, got, want)
			}
		}
	}

	// Weights of integers beside floats.
	x, wide, want := Of(normals[float32](n*k), n, k), Weight(make([]float32, m*k), 1, m, k), Of(make([]float32, m*n), n, m)
	for i := range wide.Data {
		wide.Data[i] = aScale.Data[i/k] * float32(a.Data[i])
	}
	must(t, Matmul(a, x, scaled, MatmulOptions{AScale: aScale}), Matmul(wide, x, want, MatmulOptions{}))
	sameBits(t, scaled.Data, want.Data)

	err := Matmul(a, b, exact, options)
	said := "attend: options.AScale: is given, but c's type is int32, not a floating-point type"
	if !errors.Is(err, InvalidValue) || err.Error() != said {
		t.Errorf("says %q instead of %q", err, said)
	}
}
