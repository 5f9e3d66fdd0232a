package attend

import (
	"math"
	"testing"

	"attend.dev/attend/internal/notebook"
)

func notebookInputs(t testing.TB) map[string]*Tensor[float64] {
	matrices, err := notebook.Read("../notebook/inputs.txt")
	if err != nil {
		t.Fatal(err)
	}
	inputs := map[string]*Tensor[float64]{}
	for name, m := range matrices {
		inputs[name] = Weight(m.Data, 1, m.Rows, m.Columns)
	}
	return inputs
}

func weights(in map[string]*Tensor[float64]) Weights {
	return Weights{WQ: in["omega_q"], WK: in["omega_k"], WV: in["omega_v"], BQ: in["beta_q"],
		BK: in["beta_k"], BV: in["beta_v"]}
}

func TestNotebook(t *testing.T) {
	in := notebookInputs(t)
	out := Of(make([]float64, 12), 3, 4)
	if err := SelfAttention(in["x"], weights(in), out, AttentionOptions{Scale: 1}); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 4; i++ {
		for j := 0; j < 3; j++ {
			if want := at(in["x_prime"], i, j); math.Abs(at(out, i, j)-want) > 5e-9 {
				t.Errorf("(%d, %d): %v instead of %v", i, j, at(out, i, j), want)
			}
		}
	}
	// The scaled version, which the notebook computes and throws away.
	if err := SelfAttention(in["x"], weights(in), out, AttentionOptions{}); err != nil {
		t.Fatal(err)
	}
	scaled := []float64{0.97411966, -0.23738409, -0.72333202, -0.34413007}
	for i, want := range scaled {
		if math.Abs(at(out, i, 0)-want) > 5e-9 {
			t.Errorf("scaled (%d, 0): %v instead of %v", i, at(out, i, 0), want)
		}
	}
}

func BenchmarkNotebook(b *testing.B) {
	in := notebookInputs(b)
	out, w := Of(make([]float64, 12), 3, 4), weights(in)
	for i := 0; i < b.N; i++ {
		if err := SelfAttention(in["x"], w, out, AttentionOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
