package attend

/*
#include "shim.h"
*/
import "C"

import "math"

// Lists of integers, whose lengths the library cannot see; an empty one is absent.

func (o *operands) wrongLength(argument, format string, values ...any) {
	if o.err == nil {
		o.err = newError(InvalidShape, argument, format, values...)
	}
}

func first(list []int64) *C.int64_t {
	if len(list) == 0 {
		return nil
	}
	return (*C.int64_t)(&list[0])
}

// perBatch checks that there is one number for each batch, as far as the library would read.
func (o *operands) perBatch(argument string, list []int64, batches int) *C.int64_t {
	if len(list) > 0 && len(list) < batches {
		o.wrongLength(argument, "has %d numbers for %d batches", len(list), batches)
	}
	return first(list)
}

// perItem checks that there is one number for each column of all batches of t.
func (o *operands) perItem(argument string, list []int64, t Operand) *C.int64_t {
	if len(list) == 0 {
		return nil
	}
	items := 0
	if t != nil {
		if items = t.columns() * t.batches(); t.columns() > 0 && items/t.columns() != t.batches() {
			items = math.MaxInt
		}
	}
	if len(list) != items {
		o.wrongLength(argument, "has %d numbers for %d items", len(list), items)
	}
	return first(list)
}

// starts of packed sequences, and how many there are.
type starts struct {
	first *C.int64_t
	count int
}

// starts checks that there is one number more than sequences, of which there are `sequences`, or as many as there are if
// that is 0.
func (o *operands) starts(argument string, list []int64, sequences int) starts {
	if len(list) == 0 {
		return starts{}
	}
	if len(list) == 1 {
		o.wrongLength(argument, "has 1 number, but sequences have a beginning and an end")
	} else if sequences > 0 && len(list) != sequences+1 {
		o.wrongLength(argument, "has %d numbers for %d sequences and their end", len(list), sequences)
	}
	return starts{first(list), len(list) - 1}
}
