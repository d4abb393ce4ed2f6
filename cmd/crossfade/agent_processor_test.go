package main

import (
	"io"
	"runtime"
	"testing"
)

func TestTheAgentRunsOnOneProcessorUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	before := runtime.GOMAXPROCS(3)
	defer runtime.GOMAXPROCS(before)
	for name, tc := range map[string]struct {
		environ []string
		want    int
	}{
		"told nothing":           {nil, 1},
		"told how many":          {[]string{"GOMAXPROCS=3"}, 3},
		"told nothing after all": {[]string{"GOMAXPROCS="}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := with{}.program(io.Discard, io.Discard)
			p.environ = tc.environ
			restore := p.oneProcessor()
			if got := runtime.GOMAXPROCS(0); got != tc.want {
				t.Errorf("%d processors, want %d", got, tc.want)
			}
			restore()
			if got := runtime.GOMAXPROCS(0); got != 3 {
				t.Errorf("%d processors afterwards, want 3", got)
			}
		})
	}
}
