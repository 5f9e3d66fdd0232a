package attend

/*
#include "shim.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"
)

// Operand is a *Tensor of any element type; nil, of whatever type, is an absent one.
type Operand interface {
	describe(o *operands, argument string, view *C.shim_view) unsafe.Pointer
	columns() int
	batches() int
}

// Tensor is a view of a slice, in the words of the C interface: up to four dimensions (rows, columns, heads, batch), the
// element (i, j, h, b) at Data[Offset + i*Stride[0] + j*Stride[1] + h*Stride[2] + b*Stride[3]]. Strides may be
// negative, and 0 in inputs.
type Tensor[T Element] struct {
	Data   []T
	Offset int
	Shape  []int
	Stride []int
}

// Of views data as a row-major array whose shape is given as NumPy writes it: Of(x, heads, n, d) is the tensor
// (d, n, heads), for activations. It panics if data is too short, as slicing would.
func Of[T Element](data []T, shape ...int) *Tensor[T] {
	t := &Tensor[T]{Data: data, Shape: make([]int, len(shape)), Stride: make([]int, len(shape))}
	step := 1
	for i := range shape {
		extent := shape[len(shape)-1-i]
		t.Shape[i], t.Stride[i] = extent, step
		step *= extent
	}
	if step > len(data) {
		panic(fmt.Sprintf("attend: %d elements of shape %v in a slice of %d", step, shape, len(data)))
	}
	return t
}

// Weight views data as heads row-major weights W[out][in]: the tensor (out, in, heads), which is not reversed, since it
// stands to the left of the columns it multiplies. It panics if data is too short.
func Weight[T Element](data []T, heads, out, in int) *Tensor[T] {
	if heads*out*in > len(data) {
		panic(fmt.Sprintf("attend: %d weights in a slice of %d", heads*out*in, len(data)))
	}
	return &Tensor[T]{Data: data, Shape: []int{out, in, heads}, Stride: []int{in, 1, out * in}}
}

// Reason says why a call was refused; compare with errors.Is(err, attend.InvalidShape).
type Reason int

// The reasons of attend.h.
const (
	NullPointer       Reason = C.ATTEND_NULL_POINTER
	InvalidRank       Reason = C.ATTEND_INVALID_RANK
	InvalidDtype      Reason = C.ATTEND_INVALID_DTYPE
	InvalidShape      Reason = C.ATTEND_INVALID_SHAPE
	InvalidStride     Reason = C.ATTEND_INVALID_STRIDE
	InvalidValue      Reason = C.ATTEND_INVALID_VALUE
	Overflow          Reason = C.ATTEND_OVERFLOW
	Overlap           Reason = C.ATTEND_OVERLAP
	Unsupported       Reason = C.ATTEND_UNSUPPORTED
	WorkspaceTooSmall Reason = C.ATTEND_WORKSPACE_TOO_SMALL
	OutOfMemory       Reason = C.ATTEND_OUT_OF_MEMORY
	UnknownISA        Reason = C.ATTEND_UNKNOWN_ISA
)

func (r Reason) Error() string { return C.GoString(C.attend_status_string(C.attend_status(r))) }

// ErrOutOfRange: a tensor reaches outside its slice.
var ErrOutOfRange = errors.New("the tensor reaches outside its slice")

// Error is what every function returns when a call was refused; nothing was written then.
type Error struct {
	Err      error  // a Reason, or ErrOutOfRange
	Argument string // "q", "options.mask", "" if none is at fault
	said     string
}

func (e *Error) Error() string { return "attend: " + e.said }

// newError says why the argument is at fault.
func newError(err error, argument, format string, values ...any) *Error {
	return &Error{err, argument, named(argument) + ": " + fmt.Sprintf(format, values...)}
}

// named puts this package's names into what the library says.
func named(sentence string) string {
	return goNames.Replace(strings.ReplaceAll(sentence, "attention_options.", "options."))
}

// Of two names that begin alike the longer comes first: the first that fits is taken.
var goNames = strings.NewReplacer(
	"options.flags: wants a scale computed, but k_cache", "options.ComputeKScale: is set, but kCache",
	"options.flags: wants a scale computed, but v_cache", "options.ComputeVScale: is set, but vCache",
	"options.flags: has ATTEND_COMPUTE_V_SCALE", "options.ComputeVScale: is set",
	"options.flags: has ATTEND_ROTARY_INTERLEAVED", "options.Interleaved: is set",
	"options.flags: has ATTEND_CAUSAL_BOTTOM_RIGHT", "options.Causal: is BottomRight",
	"ATTEND_PARTIAL and ATTEND_CONTINUE", "Pauses and Resumes", "options.state", "options.State", "options.key_offset", "options.KeyOffset",
	"query_starts", "QueryStarts", "key_starts", "KeyStarts", "options.pages", "options.Pages", "options.starts", "options.Starts",
	"options.offsets", "options.Offsets", "options.positions", "options.Positions", "options.slots", "options.Slots",
	"options.rotary_dims", "options.RotaryDims", "options.cos", "options.Cos", "k_cache", "kCache", "v_cache", "vCache",
	"window_left", "Window", "query_offsets", "QueryOffsets", "query_offset", "QueryOffset", "kv_lengths", "KVLengths",
	"kv_first", "KVFirst", "alibi_slopes", "ALiBiSlopes", "options.mask", "options.Mask",
	"options.bias", "options.Bias", "options.sinks", "options.Sinks", "options.sin", "options.Sin", "options.lse", "options.LSE",
	"options.scores_stage", "options.ScoresStage", "options.scores", "options.Scores", "options.scale", "options.Scale",
	"options.flags: has ATTEND_COMPUTE_SCALE", "options.ComputeScale: is set", "ATTEND_COMPUTE_SCALE", "ComputeScale",
	"options.a_scale", "options.AScale", "options.b_scale", "options.BScale", "options.a_zero", "options.AZero",
	"options.b_zero", "options.BZero", "options.k_scale", "options.KScale", "options.v_scale", "options.VScale",
	"options.softcap", "options.Softcap", "options.threads", "options.Threads", "weights.w_q", "w.WQ", "weights.w_k", "w.WK",
	"weights.w_v", "w.WV", "weights.b_q", "w.BQ", "weights.b_k", "w.BK", "weights.b_v", "w.BV", "weights.w_o", "w.WO",
	"weights.b_o", "w.BO",
	"out_a", "outA", "lse_a", "lseA", "out_b", "outB", "lse_b", "lseB")

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

func failure(status C.attend_status) error {
	if status == C.ATTEND_OK {
		return nil
	}
	reason, argument := Reason(status&0xff), C.GoString(C.attend_status_argument(status))
	if argument == "" {
		return &Error{reason, argument, reason.Error()}
	}
	return newError(reason, argument, "%s", reason.Error())
}

// failure of the call, in the words that the library left.
func (o *operands) failure(status C.attend_status) error {
	err := failure(status)
	if e, ok := err.(*Error); ok && o.message[0] != 0 {
		e.said = strings.TrimSuffix(named(C.GoString(&o.message[0])), ".")
	}
	return err
}

// operands gathers the views of a call, and the first thing wrong with them; message is the library's word on it.
type operands struct {
	views   []C.shim_view
	err     error
	message [C.shim_message_size]C.char
}

func newOperands() *operands { return &operands{views: make([]C.shim_view, 0, 20)} }

// add checks that t stays inside its slice, whatever its strides, and returns the address of its first element.
func (o *operands) add(argument string, t Operand) unsafe.Pointer {
	o.views = append(o.views, C.shim_view{})
	if t == nil {
		return nil
	}
	return t.describe(o, argument, &o.views[len(o.views)-1])
}

func (t *Tensor[T]) columns() int {
	if t == nil || len(t.Shape) < 2 {
		return 1
	}
	return t.Shape[1]
}

func (t *Tensor[T]) batches() int {
	if t == nil || len(t.Shape) < 4 {
		return 1
	}
	return t.Shape[3]
}

func (t *Tensor[T]) describe(o *operands, argument string, view *C.shim_view) unsafe.Pointer {
	if t == nil {
		return nil
	}
	fail := func(err error, format string, values ...any) unsafe.Pointer {
		if o.err == nil {
			o.err = newError(err, argument, format, values...)
		}
		return nil
	}
	if len(t.Shape) < 1 || len(t.Shape) > 4 {
		return fail(InvalidRank, "has %d dimensions, not 1 to 4", len(t.Shape))
	}
	if len(t.Stride) != len(t.Shape) {
		return fail(InvalidStride, "has %d strides for %d dimensions", len(t.Stride), len(t.Shape))
	}
	view.dtype, view.rank = dtype[T](), C.uint32_t(len(t.Shape))
	first, last, empty := t.Offset, t.Offset, false
	for i, extent := range t.Shape {
		view.shape[i], view.stride[i] = C.int64_t(extent), C.int64_t(t.Stride[i])
		if extent < 0 {
			return fail(InvalidShape, "has an extent of %d, not 0 or more", extent)
		}
		empty = empty || extent == 0
	}
	if empty {
		return nil
	}
	for i, extent := range t.Shape {
		if extent == 1 {
			continue
		}
		stride := t.Stride[i]
		if stride > len(t.Data)/(extent-1) || -stride > len(t.Data)/(extent-1) {
			return fail(ErrOutOfRange, "%d elements %d apart reach outside a slice of %d", extent, stride, len(t.Data))
		}
		if stride > 0 {
			last += stride * (extent - 1)
		} else {
			first += stride * (extent - 1)
		}
	}
	if first < 0 || last >= len(t.Data) {
		return fail(ErrOutOfRange, "reaches elements %d to %d of a slice of %d", first, last, len(t.Data))
	}
	return unsafe.Pointer(&t.Data[t.Offset])
}
