// Command crossfade is a migration gateway: it fades static credentials out
// and OpenID Connect in. See README.md, or run `crossfade --help`.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // for apply_hours, where the machine has no database of time zones

	"github.com/redis/go-redis/v9/logging"

	"crossfade/cmd/crossfade/app"
)

func main() {
	// What go-redis would say on stderr about connections, in a format of its
	// own, is in the errors that commands report and the gateway logs.
	logging.Disable()
	// The first signal asks to end, the second one insists.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	force, forced := context.WithCancel(context.Background())
	go func() {
		<-ctx.Done()
		again := make(chan os.Signal, 1)
		signal.Notify(again, os.Interrupt, syscall.SIGTERM)
		stop()
		<-again
		forced()
	}()
	p := &program{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		environ: os.Environ(), force: force, local: app.LocalAddresses,
	}
	os.Exit(p.run(ctx, os.Args[1:]))
}
