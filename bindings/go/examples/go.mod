module attend.dev/attend/examples

go 1.19

require (
	attend.dev/attend v0.0.0
	gonum.org/v1/gonum v0.12.0
)

replace attend.dev/attend => ../
