package app_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// They wait more than they work: for what the gateway does every so often, for
	// processes to start, and for outages to be noticed. `go test -parallel` says
	// otherwise.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(closing{m})
}

// closing closes what the tests share before leaks are looked for.
type closing struct{ *testing.M }

func (c closing) Run() int {
	code := c.M.Run()
	if issuer, err := sharedIssuer(); err == nil {
		_ = issuer.Close()
	}
	return code
}
