// Package notebook reads the inputs of the notebook's self-attention.
package notebook

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// Matrix is row-major.
type Matrix struct {
	Rows, Columns int
	Data          []float64
}

// Read returns the matrices of a file of "name rows columns" lines, each followed by the rows.
func Read(path string) (map[string]Matrix, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	matrices := map[string]Matrix{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		head := strings.Fields(lines.Text())
		var m Matrix
		m.Rows, _ = strconv.Atoi(head[1])
		m.Columns, _ = strconv.Atoi(head[2])
		for i := 0; i < m.Rows && lines.Scan(); i++ {
			for _, field := range strings.Fields(lines.Text()) {
				x, err := strconv.ParseFloat(field, 64)
				if err != nil {
					return nil, err
				}
				m.Data = append(m.Data, x)
			}
		}
		matrices[head[0]] = m
	}
	return matrices, nil
}
