// Package attend calls libattend: matrix multiply, column softmax and fused attention on CPUs.
//
// Every function takes views of slices, copies nothing, and may be called from any number of goroutines at once. Unless
// told otherwise a call runs on the goroutine's own thread: the operating system's threads that goroutines run on come
// and go, and each that enters OpenMP would get threads of its own. Set Threads, or AllThreads, for single large calls, or
// SetExecutor to compute on goroutines.
// What the functions compute, exactly, is written in attend.h. Operands are tensors of any element type each; what the
// library does not take together is InvalidDtype.
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

// ISA is the instruction set in use: "avx512bf16", "avx2", ...
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

// MatmulOptions: the zero value is A B. Scales and zero points are of operands of int8 or uint8, which then count as
// AScale (a - AZero) and BScale (b - BZero): (M, 1, H, B) of a, (1, N, H, B) of b, broadcast.
type MatmulOptions struct {
	Alpha          *float64 // nil = 1
	Beta           float64
	Bias           Operand
	AScale, BScale *Tensor[float32]
	AZero, BZero   *Tensor[int32]
	// Allows the CPU's dot products of BFloat16 where both factors are BFloat16: up to twice the speed where ISA() is
	// avx512bf16, within attend.h's error bound, not the bits of other CPUs; elsewhere without effect.
	NativeDot bool
	Threads   int
}

// Matmul computes c = alpha a b + beta c + bias; a (M, K, H, B), b (K, N, H, B), c (M, N, H, B). Each, the bias too, may
// be of float32, BFloat16 or Float16, whatever the others are, computed in float32 and rounded once; or all are of float64.
// With a and b of int8 or uint8, c is of int32, exact, or of a floating-point type; one of int8 may stand beside one of
// floats. See MatmulOptions.
func Matmul(a, b, c Operand, options MatmulOptions) error {
	o := newOperands()
	pa, pb, pc, pbias := o.add("a", a), o.add("b", b), o.add("c", c), o.add("options.bias", options.Bias)
	aScale, bScale := o.add("options.a_scale", options.AScale), o.add("options.b_scale", options.BScale)
	aZero, bZero := o.add("options.a_zero", options.AZero), o.add("options.b_zero", options.BZero)
	if o.err != nil {
		return o.err
	}
	alpha := 1.0
	if options.Alpha != nil {
		alpha = *options.Alpha
	}
	var flags C.uint32_t
	if options.NativeDot {
		flags = C.ATTEND_NATIVE_DOT
	}
	return o.failure(C.shim_matmul(C.double(alpha), C.double(options.Beta), flags, threads(options.Threads), pa, pb, pc,
		pbias, aScale, bScale, aZero, bZero, &o.views[0], &o.message[0]))
}

// SoftmaxOptions: the zero value is a plain softmax.
type SoftmaxOptions struct {
	Log     bool
	Scale   float64 // 0 = 1
	Mask    *Tensor[bool]
	Bias    Operand
	LSE     Operand // receives the log-sum-exp of each column, (1, N, H, B), of float32, or float64 where all is
	Threads int
}

// Softmax down each column (the last axis of a row-major array) of x, into y, which may be x. y has x's type, or is of
// float32 where x is of BFloat16 or Float16.
func Softmax(x, y Operand, options SoftmaxOptions) error {
	o := newOperands()
	px, py := o.add("x", x), o.add("y", y)
	mask, bias, lse := o.add("options.mask", options.Mask), o.add("options.bias", options.Bias),
		o.add("options.lse", options.LSE)
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
type AttentionOptions struct {
	Causal       Causal
	Window       *Window
	Scale        float64 // 0 = 1 / sqrt(D)
	Softcap      float64
	QueryOffset  int
	QueryOffsets []int64 // one per batch, instead
	KVLengths    []int64 // one per batch
	KVFirst      []int64 // one per batch: keys before it do not exist (padding on the left)
	// Packed sequences, without padding: the columns of q (of k and v) where they begin, and the number of all, so one number
	// more than there are sequences. What is one per batch is one per sequence then. A side that is not packed has the
	// sequences as its batch.
	QueryStarts, KeyStarts []int64
	// (most pages of a sequence, B), NumPy's [B, pages]: k and v are pools (D, page size, Hkv, pages of the pool), and key j of a
	// batch is column j % size of the page that row j / size names. Needs KVLengths. SelfAttention takes neither it nor KeyStarts.
	Pages *Tensor[int32]
	// Keys in several calls, with the bits of one: each but the first Resumes, each but the last, of a multiple of 256 keys,
	// Pauses. What is between them lies in State, (2 (Dv + 2), Nq, H, B), of float32, or float64 where all is: a call that pauses
	// writes it and not out, one that resumes reads it. KeyOffset is how many keys the calls before had, which moves causal
	// masks, windows and ALiBi; Mask, Bias and KVLengths are of the keys of the call. SelfAttention takes none of these.
	State           Operand
	Pauses, Resumes bool
	KeyOffset       int

	Mask        *Tensor[bool]
	Bias        Operand
	ALiBiSlopes Operand
	Sinks       Operand
	KScale      *Tensor[float32] // of int8 (needed) and Float8E4M3: as k, with 1 row (of each key) or 1 key (of each feature)
	VScale      *Tensor[float32] // the same of v; SelfAttention takes neither
	LSE         Operand          // receives (1, Nq, H, B), of float32, or float64 where all is
	Scores      Operand          // receives (Nk, Nq, H, B) of ScoresStage, of the same type
	ScoresStage Stage
	Threads     int
}

func (a *AttentionOptions) scalars(sequences int) C.shim_attention_scalars {
	s := C.shim_attention_scalars{
		scale: C.double(a.Scale), softcap: C.double(a.Softcap), query_offset: C.int64_t(a.QueryOffset),
		flags: C.uint32_t(a.Causal), scores_stage: C.uint32_t(a.ScoresStage), threads: threads(a.Threads),
		sequences: C.int64_t(sequences), key_offset: C.int64_t(a.KeyOffset),
	}
	if a.Pauses {
		s.flags |= C.ATTEND_PARTIAL
	}
	if a.Resumes {
		s.flags |= C.ATTEND_CONTINUE
	}
	if a.Window != nil {
		s.flags |= C.ATTEND_WINDOW
		s.window_left, s.window_right = C.int64_t(a.Window.Left), C.int64_t(a.Window.Right)
	}
	return s
}

type optionalOperands struct {
	mask, bias, slopes, sinks, kScale, vScale, lse, scores, pages, state unsafe.Pointer
	offsets, lengths, firsts, queryStarts, keyStarts                     *C.int64_t
	sequences                                                            int
}

func (o *operands) optional(out Operand, options *AttentionOptions) optionalOperands {
	batches := 1
	if out != nil {
		batches = out.batches()
	}
	queries := o.starts("options.query_starts", options.QueryStarts, 0)
	keys := o.starts("options.key_starts", options.KeyStarts, queries.count)
	sequences := queries.count
	if sequences == 0 {
		sequences = keys.count
	}
	if sequences > 0 {
		batches = sequences
	}
	return optionalOperands{
		queryStarts: queries.first, keyStarts: keys.first, sequences: sequences,
		mask:    o.add("options.mask", options.Mask),
		bias:    o.add("options.bias", options.Bias),
		slopes:  o.add("options.alibi_slopes", options.ALiBiSlopes),
		sinks:   o.add("options.sinks", options.Sinks),
		kScale:  o.add("options.k_scale", options.KScale),
		vScale:  o.add("options.v_scale", options.VScale),
		lse:     o.add("options.lse", options.LSE),
		scores:  o.add("options.scores", options.Scores),
		pages:   o.add("options.pages", options.Pages),
		state:   o.add("options.state", options.State),
		offsets: o.perBatch("options.query_offsets", options.QueryOffsets, batches),
		lengths: o.perBatch("options.kv_lengths", options.KVLengths, batches),
		firsts:  o.perBatch("options.kv_first", options.KVFirst, batches),
	}
}

// Attention computes out = v softmax(scale k^T q): q (D, Nq, H, B), k (D, Nk, Hkv, B), v (Dv, Nk, Hkv, B),
// out (Dv, Nq, H, B). In row-major words: [batch, head, N, D] arrays by Of. Types as in Matmul; k and v may also be of int8
// or Float8E4M3.
func Attention(q, k, v, out Operand, options AttentionOptions) error {
	o := newOperands()
	pq, pk, pv, pout := o.add("q", q), o.add("k", k), o.add("v", v), o.add("out", out)
	more := o.optional(out, &options)
	if o.err != nil {
		return o.err
	}
	scalars := options.scalars(more.sequences)
	return o.failure(C.shim_attention(&scalars, pq, pk, pv, pout, more.mask, more.bias, more.slopes, more.sinks,
		more.kScale, more.vScale, more.lse, more.scores, more.pages, more.state, more.offsets, more.lengths, more.firsts,
		more.queryStarts, more.keyStarts, &o.views[0], &o.message[0]))
}

// Merge makes (outA, lseA) the attention over the union of two disjoint key sets, given the results over each. lseA and lseB
// are of float32, or float64 where all is.
func Merge(outA, lseA, outB, lseB Operand, threadCount int) error {
	o := newOperands()
	a, la, b, lb := o.add("out_a", outA), o.add("lse_a", lseA), o.add("out_b", outB), o.add("lse_b", lseB)
	if o.err != nil {
		return o.err
	}
	return o.failure(C.shim_merge(threads(threadCount), a, la, b, lb, &o.views[0], &o.message[0]))
}

// Weights of SelfAttention: WQ (Dh, D, H), WK (Dh, D, Hkv), WV (Dv, D, Hkv), BQ (Dh, 1, H), BK, BV likewise or nil,
// WO (Dout, Dv, H) or nil, BO (Dout) or nil.
type Weights struct {
	WQ, WK, WV, BQ, BK, BV, WO, BO Operand
}

// SelfAttention projects x (D, N, 1, B), attends, and with WO projects back: out (Dv, N, H, B) or (Dout, N, 1, B).
// QueryStarts packs x with its keys.
// Types as in Matmul.
func SelfAttention(x Operand, w Weights, out Operand, options AttentionOptions) error {
	o := newOperands()
	px, pout := o.add("x", x), o.add("out", out)
	wq, wk, wv := o.add("weights.w_q", w.WQ), o.add("weights.w_k", w.WK), o.add("weights.w_v", w.WV)
	bq, bk, bv := o.add("weights.b_q", w.BQ), o.add("weights.b_k", w.BK), o.add("weights.b_v", w.BV)
	wo, bo := o.add("weights.w_o", w.WO), o.add("weights.b_o", w.BO)
	more := o.optional(out, &options)
	if o.err != nil {
		return o.err
	}
	scalars := options.scalars(more.sequences)
	return o.failure(C.shim_self_attention(&scalars, px, pout, wq, wk, wv, bq, bk, bv, wo, bo, more.mask, more.bias,
		more.slopes, more.sinks, more.kScale, more.vScale, more.lse, more.scores, more.pages, more.state, more.offsets, more.lengths,
		more.firsts, more.queryStarts, more.keyStarts, &o.views[0], &o.message[0]))
}

// ConvertOptions: the zero value converts numbers as they are.
type ConvertOptions struct {
	// What one step of a number of 8 bits stands for: y = Scale x from int8, uint8 and Float8E4M3, y = x / Scale to them.
	// Broadcasts to x: (1, N) by column, as of each token, (M, 1) by row, (1, 1) for all.
	Scale        *Tensor[float32]
	ComputeScale bool // to int8 and Float8E4M3: Scale is written first, the largest magnitude that it stands for over 127 or 448
	Threads      int
}

// Convert computes y = x in another element type, any but bool; x, y (M, N, H, B). Every number is rounded once, to nearest
// even; integers and Float8E4M3 take the nearest that there is. y may be x's memory where elements have one size.
func Convert(x, y Operand, options ConvertOptions) error {
	o := newOperands()
	px, py, scale := o.add("x", x), o.add("y", y), o.add("options.scale", options.Scale)
	if o.err != nil {
		return o.err
	}
	var flags C.uint32_t
	if options.ComputeScale {
		flags = C.ATTEND_COMPUTE_SCALE
	}
	return o.failure(C.shim_convert(flags, threads(options.Threads), px, py, scale, &o.views[0], &o.message[0]))
}
