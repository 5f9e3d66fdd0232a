package attend

import (
	"math"
	"math/rand"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// What the formula is computed for.
type float interface{ float32 | float64 }

func normals[T float](n int) []T {
	x := make([]T, n)
	for i := range x {
		x[i] = T(rand.NormFloat64())
	}
	return x
}

func at[T Element](t *Tensor[T], index ...int) T {
	p := t.Offset
	for i, j := range index {
		if i < len(t.Shape) && t.Shape[i] != 1 {
			p += j * t.Stride[i]
		}
	}
	return t.Data[p]
}

// reference is attention from the formula, in float64; visible says which keys a query sees.
func reference[T float](q, k, v *Tensor[T], scale float64, bias func(j, i, h, b int) float64,
	visible func(j, i, h, b int) bool) func(f, i, h, b int) float64 {
	group := q.Shape[2] / k.Shape[2]
	return func(f, i, h, b int) float64 {
		most, sum, out := math.Inf(-1), 0.0, 0.0
		scores := make([]float64, k.Shape[1])
		for j := range scores {
			if !visible(j, i, h, b) {
				scores[j] = math.Inf(-1)
				continue
			}
			for d := 0; d < q.Shape[0]; d++ {
				scores[j] += float64(at(q, d, i, h, b)) * float64(at(k, d, j, h/group, b))
			}
			scores[j] = scores[j]*scale + bias(j, i, h, b)
			most = math.Max(most, scores[j])
		}
		for j, s := range scores {
			if math.IsInf(s, -1) {
				continue
			}
			sum += math.Exp(s - most)
			out += math.Exp(s-most) * float64(at(v, f, j, h/group, b))
		}
		if sum == 0 {
			return 0
		}
		return out / sum
	}
}

func compare[T float](t *testing.T, out *Tensor[T], want func(f, i, h, b int) float64) {
	t.Helper()
	tolerance := 1e-5
	if _, is64 := any(T(0)).(float64); is64 {
		tolerance = 1e-12
	}
	for f := 0; f < out.Shape[0]; f++ {
		for i := 0; i < out.Shape[1]; i++ {
			for h := 0; h < out.Shape[2]; h++ {
				for b := 0; b < out.Shape[3]; b++ {
					if got, w := float64(at(out, f, i, h, b)), want(f, i, h, b); !(math.Abs(got-w) <= tolerance*(1+math.Abs(w))) {
						t.Fatalf("(%d, %d, %d, %d): %v instead of %v", f, i, h, b, got, w)
					}
				}
			}
		}
	}
}

func none(j, i, h, b int) float64 { return 0 }
func all(j, i, h, b int) bool     { return true }

func testAttention[T float](t *testing.T) {
	const batch, heads, kv, queries, keys, d = 2, 4, 2, 5, 37, 9
	// Queries interleaved as [batch, N, heads, D], which is a matter of strides.
	q := &Tensor[T]{Data: normals[T](batch * queries * heads * d), Shape: []int{d, queries, heads, batch},
		Stride: []int{1, heads * d, d, queries * heads * d}}
	k, v := Of(normals[T](batch*kv*keys*d), batch, kv, keys, d), Of(normals[T](batch*kv*keys*d), batch, kv, keys, d)
	// Items in reverse: a negative stride.
	v.Offset, v.Stride[1] = (keys-1)*d, -d
	out := func() *Tensor[T] {
		data := make([]T, batch*heads*queries*d)
		for i := range data {
			data[i] = T(math.NaN())
		}
		return Of(data, batch, heads, queries, d)
	}
	scale := 1 / math.Sqrt(d)
	mask := Of(make([]bool, queries*keys), 1, 1, queries, keys)
	for i := range mask.Data {
		mask.Data[i] = rand.Intn(3) > 0
	}
	bias := Of(normals[T](heads*queries*keys), 1, heads, queries, keys)
	slopes := Of([]T{0.5, 0.25, 0.125, 0.0625}, heads)
	lengths, firsts := []int64{30, 37}, []int64{3, 20}
	cases := map[string]struct {
		options AttentionOptions
		bias    func(j, i, h, b int) float64
		visible func(j, i, h, b int) bool
		scale   float64
	}{
		"plain":  {AttentionOptions{}, none, all, scale},
		"scaled": {AttentionOptions{Scale: 0.5, Threads: AllThreads}, none, all, 0.5},
		"causal": {AttentionOptions{Causal: BottomRight}, none,
			func(j, i, h, b int) bool { return j <= i+keys-queries }, scale},
		"offset and window": {AttentionOptions{Causal: TopLeft, QueryOffset: 7, Window: &Window{4, 0}}, none,
			func(j, i, h, b int) bool { return j <= i+7 && j >= i+3 }, scale},
		"mask and bias": {AttentionOptions{Mask: mask, Bias: bias},
			func(j, i, h, b int) float64 { return float64(at(bias, j, i, h, b)) },
			func(j, i, h, b int) bool { return at(mask, j, i, h, b) }, scale},
		"lengths": {AttentionOptions{KVLengths: lengths}, none,
			func(j, i, h, b int) bool { return j < int(lengths[b]) }, scale},
		"first keys": {AttentionOptions{KVFirst: firsts, KVLengths: lengths}, none,
			func(j, i, h, b int) bool { return j >= int(firsts[b]) && j < int(lengths[b]) }, scale},
		"alibi": {AttentionOptions{ALiBiSlopes: slopes, QueryOffset: 32},
			func(j, i, h, b int) float64 { return -float64(slopes.Data[h]) * math.Abs(float64(i+32-j)) }, all, scale},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := out()
			if err := Attention(q, k, v, o, c.options); err != nil {
				t.Fatal(err)
			}
			compare(t, o, reference(q, k, v, c.scale, c.bias, c.visible))
		})
	}
	t.Run("outputs and merge", func(t *testing.T) {
		whole, lse := out(), Of(make([]T, batch*heads*queries), batch, heads, queries, 1)
		scores := Of(make([]T, batch*heads*queries*keys), batch, heads, queries, keys)
		err := Attention(q, k, v, whole, AttentionOptions{LSE: lse, Scores: scores, ScoresStage: Probabilities})
		if err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for j := 0; j < keys; j++ {
			sum += float64(at(scores, j, 2, 3, 1))
		}
		if math.Abs(sum-1) > 1e-5 {
			t.Errorf("probabilities add to %v", sum)
		}
		part := func(from, to int) (*Tensor[T], *Tensor[T]) {
			cut := func(x *Tensor[T]) *Tensor[T] {
				shape := append([]int{}, x.Shape...)
				shape[1] = to - from
				return &Tensor[T]{x.Data, x.Offset + from*x.Stride[1], shape, x.Stride}
			}
			o, l := out(), Of(make([]T, batch*heads*queries), batch, heads, queries, 1)
			if err := Attention(q, cut(k), cut(v), o, AttentionOptions{LSE: l}); err != nil {
				t.Fatal(err)
			}
			return o, l
		}
		a, la := part(0, 20)
		b, lb := part(20, keys)
		if err := Merge(a, la, b, lb, 0); err != nil {
			t.Fatal(err)
		}
		compare(t, a, reference(q, k, v, scale, none, all))
		for i := range la.Data {
			if math.Abs(float64(la.Data[i]-lse.Data[i])) > 1e-5 {
				t.Fatalf("lse %v instead of %v", la.Data[i], lse.Data[i])
			}
		}
	})
}

func TestAttention(t *testing.T) {
	t.Run("float32", testAttention[float32])
	t.Run("float64", testAttention[float64])
}

func testMatmulSoftmax[T float](t *testing.T) {
	const m, k, n = 7, 19, 5
	a, b := Weight(normals[T](m*k), 1, m, k), Of(normals[T](2*k*n), n, 2*k)
	b.Shape, b.Stride = []int{k, n}, []int{2, 2 * k} // every other element
	c, bias := Of(make([]T, m*n), n, m), &Tensor[T]{Data: normals[T](m), Shape: []int{m}, Stride: []int{1}}
	for i := range c.Data {
		c.Data[i] = 1
	}
	alpha := 0.5
	if err := Matmul(a, b, c, MatmulOptions{Alpha: &alpha, Beta: 2, Bias: bias}); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < m; i++ {
		for j := 0; j < n; j++ {
			want := 2 + float64(bias.Data[i])
			for l := 0; l < k; l++ {
				want += 0.5 * float64(at(a, i, l)) * float64(at(b, l, j))
			}
			if got := float64(at(c, i, j)); math.Abs(got-want) > 1e-4 {
				t.Fatalf("(%d, %d): %v instead of %v", i, j, got, want)
			}
		}
	}
	x, y := Of(normals[T](n*m), n, m), Of(make([]T, n*m), n, m)
	lse := Of(make([]T, n), n, 1)
	mask := Of(make([]bool, n*m), n, m)
	for i := range mask.Data {
		mask.Data[i] = i%m != 3
	}
	if err := Softmax(x, y, SoftmaxOptions{Scale: 2, Mask: mask, LSE: lse}); err != nil {
		t.Fatal(err)
	}
	logs := Of(make([]T, n*m), n, m)
	if err := Softmax(x, logs, SoftmaxOptions{Scale: 2, Mask: mask, Log: true}); err != nil {
		t.Fatal(err)
	}
	for j := 0; j < n; j++ {
		sum := 0.0
		for i := 0; i < m; i++ {
			if i != 3 {
				sum += math.Exp(2 * float64(at(x, i, j)))
			}
		}
		for i := 0; i < m; i++ {
			want := math.Exp(2*float64(at(x, i, j))) / sum
			if i == 3 {
				want = 0
			}
			if got := float64(at(y, i, j)); math.Abs(got-want) > 1e-6 {
				t.Fatalf("(%d, %d): %v instead of %v", i, j, got, want)
			}
			if i != 3 && math.Abs(float64(at(logs, i, j))-math.Log(want)) > 1e-5 {
				t.Fatalf("log (%d, %d)", i, j)
			}
		}
		if math.Abs(float64(lse.Data[j])-math.Log(sum)) > 1e-5 {
			t.Fatalf("lse %v instead of %v", lse.Data[j], math.Log(sum))
		}
	}
}

func TestMatmulSoftmax(t *testing.T) {
	t.Run("float32", testMatmulSoftmax[float32])
	t.Run("float64", testMatmulSoftmax[float64])
}

func TestVersion(t *testing.T) {
	if Version() < 100 || ISA() == "" || Threads() < 1 {
		t.Fatal(Version(), ISA(), Threads())
	}
}

func TestGoroutines(t *testing.T) {
	q := Of(normals[float32](4*33*16), 4, 33, 16)
	want := Of(make([]float32, 4*33*16), 4, 33, 16)
	options := AttentionOptions{Causal: TopLeft}
	if err := Attention(q, q, q, want, options); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for g := 0; g < 64; g++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for r := 0; r < 20; r++ {
				got := Of(make([]float32, 4*33*16), 4, 33, 16)
				if err := Attention(q, q, q, got, options); err != nil {
					t.Error(err)
					return
				}
				for i := range got.Data {
					if got.Data[i] != want.Data[i] {
						t.Error("other bits than alone")
						return
					}
				}
				runtime.Gosched()
			}
		}()
	}
	wait.Wait()
}

func resident(t *testing.T) int {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "VmRSS:") {
			n, _ := strconv.Atoi(strings.Fields(line)[1])
			return n
		}
	}
	t.Skip("no VmRSS")
	return 0
}

func TestMemory(t *testing.T) {
	q, out := Of(normals[float32](8*64*64), 8, 64, 64), Of(make([]float32, 8*64*64), 8, 64, 64)
	bad := Of(make([]float32, 6), 2, 3)
	round := func() {
		for i := 0; i < 1000; i++ {
			if err := Attention(q, q, q, out, AttentionOptions{}); err != nil {
				t.Fatal(err)
			}
			if Attention(q, bad, q, out, AttentionOptions{}) == nil {
				t.Fatal("no error")
			}
		}
		runtime.GC()
	}
	// A leak grows in every round; the runtime's own memory, more under the race detector, settles.
	for i := 0; i < 12; i++ {
		before := resident(t)
		round()
		if resident(t)-before < 256 {
			return
		}
	}
	t.Error("grew by more than 256 KiB in each of 12 rounds of 1000 calls")
}
