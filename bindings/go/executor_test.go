package attend

import (
	"errors"
	"math"
	"runtime"
	"sync"
	"testing"
	"time"
)

func TestExecutor(t *testing.T) {
	const heads, n, d = 4, 300, 64
	q := Of(normals[float32](heads*n*d), heads, n, d)
	bits := func(threads int) []float32 {
		out := Of(make([]float32, heads*n*d), heads, n, d)
		if err := Attention(q, q, q, out, AttentionOptions{Causal: TopLeft, Threads: threads}); err != nil {
			t.Error(err)
		}
		return out.Data
	}
	want := bits(1)
	check := func(threads int) {
		for i, x := range bits(threads) {
			if x != want[i] {
				t.Error("other bits than alone")
				return
			}
		}
	}
	for _, workers := range []int{1, 2, 3, 64, math.MaxInt} {
		if err := SetExecutor(workers); err != nil {
			t.Fatal(err)
		}
		for _, threads := range []int{AllThreads, 0, 1, 2, 7, 500} {
			check(threads)
		}
	}
	if err := SetExecutor(4); err != nil {
		t.Fatal(err)
	}
	stop, helped := make(chan bool), make(chan bool)
	go func() {
		seen := false
		for {
			select {
			case <-stop:
				helped <- seen
				return
			default:
				seen = seen || helpers.Load() > 0
				runtime.Gosched()
			}
		}
	}()
	for start := time.Now(); time.Since(start) < time.Second/4; {
		check(AllThreads)
	}
	close(stop)
	if !<-helped {
		t.Error("no goroutine has helped")
	}
	for _, processors := range []int{1, 2, runtime.NumCPU()} {
		before := runtime.GOMAXPROCS(processors)
		var wait sync.WaitGroup
		for g := 0; g < 64; g++ {
			wait.Add(1)
			go func(g int) {
				defer wait.Done()
				for r := 0; r < 5; r++ {
					if g == 0 {
						_ = SetExecutor(2 + r)
					}
					check(AllThreads)
					if n := helpers.Load(); n > 64+6 { // each that calls takes one too many for a moment
						t.Errorf("%d helpers", n)
					}
				}
			}(g)
		}
		wait.Wait()
		runtime.GOMAXPROCS(before)
	}
	// A wrong one changes nothing.
	if err := SetExecutor(math.MinInt); !errors.Is(err, InvalidValue) {
		t.Error(err)
	}
	check(AllThreads)
	for helpers.Load() != 0 { // those that came too late
		runtime.Gosched()
	}
	if err := SetExecutor(0); err != nil {
		t.Fatal(err)
	}
	check(2)
}
