// Package attend calls libattend: matrix multiply, column softmax and fused attention on CPUs.
//
// Every function takes views of slices, copies nothing, and may be called from any number of goroutines at once. Unless
// told otherwise a call runs on the goroutine's own thread: the operating system's threads that goroutines run on come
// and go, and each that enters OpenMP would get threads of its own. Set Threads, or AllThreads, for single large calls, or
// SetExecutor to compute on goroutines.
// What the functions compute, exactly, is written in attend.h.
package attend

/*
#cgo pkg-config: attend
#cgo CFLAGS: -std=c99
#include "shim.h"
#include <stdlib.h>
*/
import "C"

import (
	"fmt"
	"math"
	"strings"
	"unsafe"
)

// AllThreads as an option's Threads: as many as Threads() says.
const AllThreads = -1

func threads(n int) C.int32_t {
	switch {
	case n == 0:
		return 1
	case n == AllThreads:
		return 0
	default:
		return clamped(n)
	}
}

// clamped keeps what an int32 does not hold from becoming another number.
func clamped(n int) C.int32_t {
	switch {
	case n > math.MaxInt32:
		return math.MaxInt32
	case n < math.MinInt32:
		return math.MinInt32
	default:
		return C.int32_t(n)
	}
}

// The library that is loaded must have the interface that this package was compiled for.
func init() {
	have, want := uint32(C.attend_version()), uint32(C.ATTEND_VERSION)
	if have/100 != want/100 || have < want {
		panic(fmt.Sprintf("attend: the library is version %d, this package was built for %d", have, want))
	}
}

// Version of the library: 10000*major + 100*minor + patch.
func Version() int { return int(C.attend_version()) }

// ISA is the instruction set in use: "avx512", "avx2", ...
func ISA() string { return C.GoString(C.attend_isa()) }

// SetISA selects an instruction set, "" the best.
func SetISA(name string) error {
	if name == "" {
		return failure(C.attend_set_isa(nil))
	}
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	if status := C.attend_set_isa(text); status != C.ATTEND_OK {
		var have []string
		for i := 0; C.attend_isa_name(C.int32_t(i)) != nil; i++ {
			have = append(have, C.GoString(C.attend_isa_name(C.int32_t(i))))
		}
		return newError(Reason(status&0xff), "name", "is %q, not one of %s", name, strings.Join(have, ", "))
	}
	return nil
}

// Threads is what AllThreads stands for.
func Threads() int { return int(C.attend_threads()) }

// SetThreads sets it for the process; 0 restores the default.
func SetThreads(n int) error {
	if status := C.attend_set_threads(clamped(n)); status != C.ATTEND_OK {
		return newError(Reason(status&0xff), "threads", "is %d, but must be 0 or more", n)
	}
	return nil
}

// MatmulOptions: the zero value is A B.
type MatmulOptions[T Float] struct {
	Alpha   *T // nil = 1
	Beta    T
	Bias    *Tensor[T]
	Threads int
}

// Matmul computes c = alpha a b + beta c + bias; a (M, K, H, B), b (K, N, H, B), c (M, N, H, B).
func Matmul[T Float](a, b, c *Tensor[T], options MatmulOptions[T]) error {
	o := newOperands()
	pa, pb, pc, pbias := add(o, "a", a), add(o, "b", b), add(o, "c", c), add(o, "options.bias", options.Bias)
	if o.err != nil {
		return o.err
	}
	alpha := 1.0
	if options.Alpha != nil {
		alpha = float64(*options.Alpha)
	}
	return o.failure(C.shim_matmul(C.double(alpha), C.double(options.Beta), threads(options.Threads), pa, pb, pc, pbias,
		&o.views[0], &o.message[0]))
}

// SoftmaxOptions: the zero value is a plain softmax.
type SoftmaxOptions[T Float] struct {
	Log     bool
	Scale   float64 // 0 = 1
	Mask    *Tensor[bool]
	Bias    *Tensor[T]
	LSE     *Tensor[T] // receives the log-sum-exp of each column, (1, N, H, B)
	Threads int
}

// Softmax down each column (the last axis of a row-major array) of x, into y, which may be x.
func Softmax[T Float](x, y *Tensor[T], options SoftmaxOptions[T]) error {
	o := newOperands()
	px, py := add(o, "x", x), add(o, "y", y)
	mask, bias, lse := add(o, "options.mask", options.Mask), add(o, "options.bias", options.Bias),
		add(o, "options.lse", options.LSE)
	if o.err != nil {
		return o.err
	}
	var flags C.uint32_t
	if options.Log {
		flags = C.ATTEND_LOG
	}
	return o.failure(C.shim_softmax(C.double(options.Scale), flags, threads(options.Threads), px, py, mask, bias, lse,
		&o.views[0], &o.message[0]))
}

// Causal masks: key j is visible to query i iff j <= i + offset.
type Causal int

// TopLeft: query 0 sees key 0. BottomRight: the last query sees the last key.
const (
	NotCausal   Causal = 0
	TopLeft     Causal = C.ATTEND_CAUSAL_TOP_LEFT
	BottomRight Causal = C.ATTEND_CAUSAL_BOTTOM_RIGHT
)

// Window is a sliding window of keys around each query; -1 = no bound on that side.
type Window struct{ Left, Right int }

// Stage says which scores AttentionOptions.Scores receives.
type Stage int

// The stages, in the order in which scores are made.
const (
	Scaled        Stage = C.ATTEND_SCORES_SCALED
	Softcapped    Stage = C.ATTEND_SCORES_SOFTCAPPED
	Masked        Stage = C.ATTEND_SCORES_MASKED
	Probabilities Stage = C.ATTEND_SCORES_PROBABILITIES
)

// AttentionOptions: the zero value is plain attention. All of them compose.
type AttentionOptions[T Float] struct {
	Causal       Causal
	Window       *Window
	Scale        float64 // 0 = 1 / sqrt(D)
	Softcap      float64
	QueryOffset  int
	QueryOffsets []int64 // one per batch, instead
	KVLengths    []int64 // one per batch
	KVFirst      []int64 // one per batch: keys before it do not exist (padding on the left)
	Mask         *Tensor[bool]
	Bias         *Tensor[T]
	ALiBiSlopes  *Tensor[T]
	Sinks        *Tensor[T]
	LSE          *Tensor[T] // receives (1, Nq, H, B)
	Scores       *Tensor[T] // receives (Nk, Nq, H, B) of ScoresStage
	ScoresStage  Stage
	Threads      int
}

func (a *AttentionOptions[T]) scalars() C.shim_attention_scalars {
	s := C.shim_attention_scalars{
		scale: C.double(a.Scale), softcap: C.double(a.Softcap), query_offset: C.int64_t(a.QueryOffset),
		flags: C.uint32_t(a.Causal), scores_stage: C.uint32_t(a.ScoresStage), threads: threads(a.Threads),
	}
	if a.Window != nil {
		s.flags |= C.ATTEND_WINDOW
		s.window_left, s.window_right = C.int64_t(a.Window.Left), C.int64_t(a.Window.Right)
	}
	return s
}

// perBatch checks that there is one number for each batch, as far as the library would read.
func perBatch[T Float](o *operands, argument string, list []int64, of *Tensor[T]) *C.int64_t {
	if len(list) == 0 {
		return nil
	}
	batch := 1
	if of != nil && len(of.Shape) == 4 {
		batch = of.Shape[3]
	}
	if len(list) < batch && o.err == nil {
		o.err = newError(InvalidShape, argument, "has %d numbers for %d batches", len(list), batch)
	}
	return (*C.int64_t)(&list[0])
}

type optionalOperands struct {
	mask, bias, slopes, sinks, lse, scores unsafe.Pointer
	offsets, lengths, firsts               *C.int64_t
}

func optional[T Float](o *operands, out *Tensor[T], options *AttentionOptions[T]) optionalOperands {
	return optionalOperands{
		mask:    add(o, "options.mask", options.Mask),
		bias:    add(o, "options.bias", options.Bias),
		slopes:  add(o, "options.alibi_slopes", options.ALiBiSlopes),
		sinks:   add(o, "options.sinks", options.Sinks),
		lse:     add(o, "options.lse", options.LSE),
		scores:  add(o, "options.scores", options.Scores),
		offsets: perBatch(o, "options.query_offsets", options.QueryOffsets, out),
		lengths: perBatch(o, "options.kv_lengths", options.KVLengths, out),
		firsts:  perBatch(o, "options.kv_first", options.KVFirst, out),
	}
}

// Attention computes out = v softmax(scale k^T q): q (D, Nq, H, B), k (D, Nk, Hkv, B), v (Dv, Nk, Hkv, B),
// out (Dv, Nq, H, B). In row-major words: [batch, head, N, D] arrays by Of.
func Attention[T Float](q, k, v, out *Tensor[T], options AttentionOptions[T]) error {
	o := newOperands()
	pq, pk, pv, pout := add(o, "q", q), add(o, "k", k), add(o, "v", v), add(o, "out", out)
	more := optional(o, out, &options)
	if o.err != nil {
		return o.err
	}
	scalars := options.scalars()
	return o.failure(C.shim_attention(&scalars, pq, pk, pv, pout, more.mask, more.bias, more.slopes, more.sinks,
		more.lse, more.scores, more.offsets, more.lengths, more.firsts, &o.views[0], &o.message[0]))
}

// Merge makes (outA, lseA) the attention over the union of two disjoint key sets, given the results over each.
func Merge[T Float](outA, lseA, outB, lseB *Tensor[T], threadCount int) error {
	o := newOperands()
	a, la, b, lb := add(o, "out_a", outA), add(o, "lse_a", lseA), add(o, "out_b", outB), add(o, "lse_b", lseB)
	if o.err != nil {
		return o.err
	}
	return o.failure(C.shim_merge(threads(threadCount), a, la, b, lb, &o.views[0], &o.message[0]))
}

// Weights of SelfAttention: WQ (Dh, D, H), WK (Dh, D, Hkv), WV (Dv, D, Hkv), BQ (Dh, 1, H), BK, BV likewise or nil,
// WO (Dout, Dv, H) or nil, BO (Dout) or nil.
type Weights[T Float] struct {
	WQ, WK, WV, BQ, BK, BV, WO, BO *Tensor[T]
}

// SelfAttention projects x (D, N, 1, B), attends, and with WO projects back: out (Dv, N, H, B) or (Dout, N, 1, B).
func SelfAttention[T Float](x *Tensor[T], w Weights[T], out *Tensor[T], options AttentionOptions[T]) error {
	o := newOperands()
	px, pout := add(o, "x", x), add(o, "out", out)
	wq, wk, wv := add(o, "weights.w_q", w.WQ), add(o, "weights.w_k", w.WK), add(o, "weights.w_v", w.WV)
	bq, bk, bv := add(o, "weights.b_q", w.BQ), add(o, "weights.b_k", w.BK), add(o, "weights.b_v", w.BV)
	wo, bo := add(o, "weights.w_o", w.WO), add(o, "weights.b_o", w.BO)
	more := optional(o, out, &options)
	if o.err != nil {
		return o.err
	}
	scalars := options.scalars()
	return o.failure(C.shim_self_attention(&scalars, px, pout, wq, wk, wv, bq, bk, bv, wo, bo, more.mask, more.bias,
		more.slopes, more.sinks, more.lse, more.scores, more.offsets, more.lengths, more.firsts, &o.views[0], &o.message[0]))
}
