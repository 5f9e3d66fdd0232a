// Realsize times attention of 8 heads of 1024 items and 64 features beside the same computed with gonum.
package main

import (
	"fmt"
	"log"
	"math"
	"math/rand"
	"time"

	"attend.dev/attend"
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
)

const heads, n, d = 8, 1024, 64

// with gonum: two products and the softmax of each row, head by head.
func gonum(q, k, v, out []float32) {
	scores := blas32.General{Rows: n, Cols: n, Stride: n, Data: make([]float32, n*n)}
	view := func(x []float32, h int) blas32.General {
		return blas32.General{Rows: n, Cols: d, Stride: d, Data: x[h*n*d : (h+1)*n*d]}
	}
	for h := 0; h < heads; h++ {
		blas32.Gemm(blas.NoTrans, blas.Trans, float32(1/math.Sqrt(d)), view(q, h), view(k, h), 0, scores)
		for i := 0; i < n; i++ {
			row := scores.Data[i*n : (i+1)*n]
			most, sum := row[0], float32(0)
			for _, x := range row {
				if x > most {
					most = x
				}
			}
			for j, x := range row {
				row[j] = float32(math.Exp(float64(x - most)))
				sum += row[j]
			}
			for j := range row {
				row[j] /= sum
			}
		}
		blas32.Gemm(blas.NoTrans, blas.NoTrans, 1, scores, view(v, h), 0, view(out, h))
	}
}

func best(f func()) time.Duration {
	least := time.Hour
	for i := 0; i < 3; i++ {
		start := time.Now()
		f()
		if t := time.Since(start); t < least {
			least = t
		}
	}
	return least
}

func main() {
	random := func() []float32 {
		x := make([]float32, heads*n*d)
		for i := range x {
			x[i] = float32(rand.NormFloat64())
		}
		return x
	}
	q, k, v, ours, theirs := random(), random(), random(), make([]float32, heads*n*d), make([]float32, heads*n*d)
	of := func(x []float32) *attend.Tensor[float32] { return attend.Of(x, heads, n, d) }
	call := func(threads int) func() {
		return func() {
			options := attend.AttentionOptions{Threads: threads}
			if err := attend.Attention(of(q), of(k), of(v), of(ours), options); err != nil {
				log.Fatal(err)
			}
		}
	}
	one, all, other := best(call(1)), best(call(attend.AllThreads)), best(func() { gonum(q, k, v, theirs) })
	for i := range ours {
		if math.Abs(float64(ours[i]-theirs[i])) > 1e-4 {
			log.Fatalf("element %d: %v and %v", i, ours[i], theirs[i])
		}
	}
	fmt.Printf("attend %s: %v on one thread, %v on %d; gonum (all threads): %v\n", attend.ISA(), one, all, attend.Threads(), other)
}
