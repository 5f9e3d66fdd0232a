package attend

/*
#include "shim.h"
*/
import "C"

import (
	"fmt"
	"math"
)

// Element is a type of which there are tensors; bool is for masks. Which of them a call takes beside each other is said
// with the function.
type Element interface {
	float32 | float64 | BFloat16 | Float16 | Float8E4M3 | int8 | uint8 | int32 | bool
}

// BFloat16 is the upper half of a float32's bits.
type BFloat16 uint16

// Float16 is the bits of IEEE 754's binary16.
type Float16 uint16

// Float8E4M3 is the bits of a number with 4 bits of exponent and 3 of fraction ("fn": the largest is 448, there is no
// infinity).
type Float8E4M3 uint8

// What these have beside a sign; infinity is the bits above the largest number, or that number where there is none.
type format struct {
	exponent, fraction int
	infinity, nan      uint32
}

var (
	bfloat16   = format{8, 7, 0x7f80, 0x7fc0}
	float16    = format{5, 10, 0x7c00, 0x7e00}
	float8E4M3 = format{4, 3, 0x7e, 0x7f}
)

// ToBFloat16 rounds to nearest even. Convert does the same for many numbers at once.
func ToBFloat16(x float32) BFloat16 { return BFloat16(bfloat16.round(x)) }

// ToFloat16 rounds to nearest even.
func ToFloat16(x float32) Float16 { return Float16(float16.round(x)) }

// ToFloat8E4M3 rounds to nearest even; beyond 448 it gives 448.
func ToFloat8E4M3(x float32) Float8E4M3 { return Float8E4M3(float8E4M3.round(x)) }

// Float32 is the same number.
func (x BFloat16) Float32() float32 { return math.Float32frombits(uint32(x) << 16) }

// Float32 is the same number.
func (x Float16) Float32() float32 { return float16.widen(uint32(x)) }

// Float32 is the same number.
func (x Float8E4M3) Float32() float32 { return float8E4M3.widen(uint32(x)) }

func (x BFloat16) String() string   { return fmt.Sprint(x.Float32()) }
func (x Float16) String() string    { return fmt.Sprint(x.Float32()) }
func (x Float8E4M3) String() string { return fmt.Sprint(x.Float32()) }

func (f format) bias() int { return 1<<(f.exponent-1) - 1 }

func (f format) round(x float32) uint32 {
	sign := math.Float32bits(x) >> 31 << (f.exponent + f.fraction)
	if x != x {
		return sign | f.nan
	}
	size := math.Min(math.Abs(float64(x)), math.MaxFloat32*2) // infinity is beyond all, and a number
	_, e := math.Frexp(size)
	least := 1 - f.bias() // the exponent of subnormal numbers
	if e--; e < least || size == 0 {
		e = least
	}
	// In units in the last place, the leading one of normal numbers included: it counts as one exponent more.
	units := uint32(math.RoundToEven(math.Ldexp(size, f.fraction-e)))
	if bits := units + uint32(e-least)<<f.fraction; bits < f.infinity {
		return sign | bits
	}
	return sign | f.infinity
}

func (f format) widen(bits uint32) float32 {
	size := bits &^ (1 << (f.exponent + f.fraction))
	exponent, units := int(size>>f.fraction), float64(size&(1<<f.fraction-1))
	x := math.Inf(1)
	switch {
	case size > f.infinity:
		x = math.NaN()
	case exponent == 0:
		x = math.Ldexp(units, 1-f.bias()-f.fraction)
	case size < f.infinity || f.infinity+1 == f.nan:
		x = math.Ldexp(units+math.Ldexp(1, f.fraction), exponent-f.bias()-f.fraction)
	}
	if size != bits {
		x = -x
	}
	return float32(x)
}

func dtype[T Element]() C.uint32_t {
	var x T
	switch any(x).(type) {
	case float32:
		return C.ATTEND_F32
	case float64:
		return C.ATTEND_F64
	case BFloat16:
		return C.ATTEND_BF16
	case Float16:
		return C.ATTEND_F16
	case Float8E4M3:
		return C.ATTEND_F8E4M3
	case int8:
		return C.ATTEND_I8
	case uint8:
		return C.ATTEND_U8
	case int32:
		return C.ATTEND_I32
	default:
		return C.ATTEND_BOOL
	}
}
