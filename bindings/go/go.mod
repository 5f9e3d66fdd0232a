module attend.dev/attend

go 1.19
