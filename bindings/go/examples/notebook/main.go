// Notebook computes the self-attention of the notebook and prints what it prints.
package main

import (
	"bufio"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"

	"attend.dev/attend"
)

// read returns the matrices of a file: "name rows columns", then the rows.
func read(path string) map[string]*attend.Tensor[float64] {
	file, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	matrices := map[string]*attend.Tensor[float64]{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		head := strings.Fields(lines.Text())
		rows, _ := strconv.Atoi(head[1])
		columns, _ := strconv.Atoi(head[2])
		var data []float64
		for i := 0; i < rows && lines.Scan(); i++ {
			for _, field := range strings.Fields(lines.Text()) {
				x, err := strconv.ParseFloat(field, 64)
				if err != nil {
					log.Fatal(err)
				}
				data = append(data, x)
			}
		}
		matrices[head[0]] = attend.Weight(data, 1, rows, columns)
	}
	return matrices
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: notebook bindings/notebook/inputs.txt")
	}
	m := read(os.Args[1])
	weights := attend.Weights[float64]{WQ: m["omega_q"], WK: m["omega_k"], WV: m["omega_v"],
		BQ: m["beta_q"], BK: m["beta_k"], BV: m["beta_v"]}
	for _, run := range []struct {
		title string
		scale float64
	}{{"x_prime, unscaled:", 1}, {"x_prime, scaled by 1/sqrt(D):", 0}} {
		out := make([]float64, 12)
		err := attend.SelfAttention(m["x"], weights, attend.Of(out, 3, 4), attend.AttentionOptions[float64]{Scale: run.scale})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(run.title)
		for item := 0; item < 3; item++ {
			fmt.Printf("%12.8f\n", out[4*item:4*item+4])
		}
	}
}
