// Notebook computes the self-attention of the notebook and prints what it prints.
package main

import (
	"fmt"
	"log"
	"os"

	"attend.dev/attend"
	"attend.dev/attend/internal/notebook"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: notebook bindings/notebook/inputs.txt")
	}
	matrices, err := notebook.Read(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	m := map[string]*attend.Tensor[float64]{}
	for name, of := range matrices {
		m[name] = attend.Weight(of.Data, 1, of.Rows, of.Columns)
	}
	weights := attend.Weights{WQ: m["omega_q"], WK: m["omega_k"], WV: m["omega_v"],
		BQ: m["beta_q"], BK: m["beta_k"], BV: m["beta_v"]}
	for _, run := range []struct {
		title string
		scale float64
	}{{"x_prime, unscaled:", 1}, {"x_prime, scaled by 1/sqrt(D):", 0}} {
		out := make([]float64, 12)
		err := attend.SelfAttention(m["x"], weights, attend.Of(out, 3, 4), attend.AttentionOptions{Scale: run.scale})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(run.title)
		for item := 0; item < 3; item++ {
			fmt.Printf("%12.8f\n", out[4*item:4*item+4])
		}
	}
}
