package attend

/*
#include "shim.h"
*/
import "C"

// RotaryOptions: the zero value rotates all features, columns standing at positions 0, 1, 2 ...
type RotaryOptions struct {
	RotaryDims  int     // so many features, an even number, are rotated, the others copied; 0 = all
	Interleaved bool    // pairs are features 2i and 2i + 1, not i and i + RotaryDims / 2
	Inverse     bool    // by the opposite angle
	Positions   []int64 // one per item, columns before batches; nil = offset + number in its sequence
	Offsets     []int64 // one per batch: position of its first item; nil = 0. Not beside Positions
	Starts      []int64 // packed sequences: the columns of x where they begin, and the number of all
	Threads     int
}

// Rotary turns each pair of features of x (D, N, H, B) by the angle of its item's position, into y of the same shape, which
// may be x where elements have one size. cos and sin are (RotaryDims / 2, positions, 1 or H, 1 or B): Of(cos, positions,
// RotaryDims/2). Types as in Matmul, those of integers left out.
func Rotary(x, cos, sin, y Operand, options RotaryOptions) error {
	o := newOperands()
	px, pcos, psin, py := o.add("x", x), o.add("cos", cos), o.add("sin", sin), o.add("y", y)
	begins, batches := o.packing(options.Starts, x)
	positions := o.perItem("options.positions", options.Positions, x)
	offsets := o.perBatch("options.offsets", options.Offsets, batches)
	if o.err != nil {
		return o.err
	}
	var flags C.uint32_t
	if options.Interleaved {
		flags |= C.ATTEND_ROTARY_INTERLEAVED
	}
	if options.Inverse {
		flags |= C.ATTEND_ROTARY_INVERSE
	}
	return o.failure(C.shim_rotary(flags, threads(options.Threads), C.int64_t(options.RotaryDims), C.int64_t(begins.count), px,
		pcos, psin, py, positions, offsets, begins.first, &o.views[0], &o.message[0]))
}

// packing of what x holds: its starts, and how many batches or sequences there are.
func (o *operands) packing(list []int64, x Operand) (starts, int) {
	begins := o.starts("options.starts", list, 0)
	switch {
	case begins.count > 0:
		return begins, begins.count
	case x == nil:
		return begins, 1
	default:
		return begins, x.batches()
	}
}

// KVAppendOptions: the zero value appends to empty caches.
type KVAppendOptions struct {
	Starts  []int64        // packed sequences: the columns of k where they begin, and the number of all
	Offsets []int64        // one per batch: the column of its cache where its first new item goes, the length before; nil = 0
	Slots   []int64        // one per item, instead: page * page size + column (without pages batch * capacity + column); -1 = nowhere
	Pages   *Tensor[int32] // as in AttentionOptions: the caches are pools
	// Of caches of int8 (needed) and Float8E4M3: as the cache, with 1 row or 1 column, broadcast; computed, 1 row, and written.
	KScale, VScale               *Tensor[float32]
	ComputeKScale, ComputeVScale bool
	Cos, Sin                     Operand // as in Rotary, both or none: k is not rotated
	// As in RotaryOptions.
	RotaryDims  int
	Positions   []int64
	Interleaved bool
	Threads     int
}

// KVAppend writes new keys and values into their caches, k rotated if there are tables, both converted to the types of the
// caches: k (D, new, Hkv, B), v (Dv, new, Hkv, B), caches (D, capacity, Hkv, B) and (Dv, ..), or pools (.., page size, Hkv,
// pages). v and vCache may both be nil. What is no new item's stays as it is. k, v, Cos and Sin are of float32, BFloat16 or
// Float16, caches of those, int8 or Float8E4M3, each by itself; or all are of float64.
func KVAppend(k, v, kCache, vCache Operand, options KVAppendOptions) error {
	o := newOperands()
	pk, pv, pkCache, pvCache := o.add("k", k), o.add("v", v), o.add("k_cache", kCache), o.add("v_cache", vCache)
	pages, kScale, vScale := o.add("options.pages", options.Pages), o.add("options.k_scale", options.KScale),
		o.add("options.v_scale", options.VScale)
	cos, sin := o.add("options.cos", options.Cos), o.add("options.sin", options.Sin)
	begins, batches := o.packing(options.Starts, k)
	offsets := o.perBatch("options.offsets", options.Offsets, batches)
	slots := o.perItem("options.slots", options.Slots, k)
	positions := o.perItem("options.positions", options.Positions, k)
	if o.err != nil {
		return o.err
	}
	var flags C.uint32_t
	if options.Interleaved {
		flags |= C.ATTEND_ROTARY_INTERLEAVED
	}
	if options.ComputeKScale {
		flags |= C.ATTEND_COMPUTE_K_SCALE
	}
	if options.ComputeVScale {
		flags |= C.ATTEND_COMPUTE_V_SCALE
	}
	return o.failure(C.shim_kv_append(flags, threads(options.Threads), C.int64_t(options.RotaryDims), C.int64_t(begins.count),
		pk, pv, pkCache, pvCache, pages, kScale, vScale, cos, sin, begins.first, offsets, slots, positions, &o.views[0],
		&o.message[0]))
}
