package agent_test

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"crossfade/gateway/agent"
)

// child is what the test's binary does as a command: its role, and then it ends.
func child(role string) {
	what, rest, _ := strings.Cut(role, " ")
	switch what {
	case "exit":
		var code int
		_, _ = fmt.Sscan(rest, &code)
		os.Exit(code)
	case "die":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "copy":
		_, _ = io.Copy(os.Stdout, os.Stdin)
		fmt.Fprint(os.Stderr, "to stderr ", os.Getenv("GIVEN"))
		os.Exit(0)
	case "count": // signals, until SIGTERM; then the exit code is how many others came
		got := make(chan os.Signal, 8)
		signal.Notify(got, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGQUIT, syscall.SIGTERM)
		fmt.Print("ready\n")
		for n := 0; ; n++ {
			s := <-got
			if s == syscall.SIGTERM {
				os.Exit(n)
			}
			fmt.Printf("%d\n", s)
		}
	default:
		os.Exit(99)
	}
}

// asCommand is the test's binary in a role.
func asCommand(t *testing.T, role string) agent.Command {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return agent.Command{
		Args: []string{self}, Environ: []string{asChild + "=" + role, "GIVEN=value"},
		Stdin: strings.NewReader("input"), Stdout: io.Discard, Stderr: io.Discard,
	}
}

func TestTheExitCodeIsTheCommands(t *testing.T) {
	for role, want := range map[string]int{"exit 0": 0, "exit 4": 4, "exit 77": 77, "exit 255": 255, "die": 128 + 9} {
		code, signaled, err := asCommand(t, role).Run()
		if code != want || err != nil || signaled != (role == "die") {
			t.Errorf("%s: exit code %d, signaled %v, %v", role, code, signaled, err)
		}
	}
}

func TestACommandThatCannotBeStartedHasTheExitCodeOfShells(t *testing.T) {
	dir := t.TempDir()
	plain := dir + "/plain"
	if err := os.WriteFile(plain, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want int
	}{
		"a command that nobody has": {[]string{"crossfade-no-such-command"}, 127},
		"a file that is missing":    {[]string{dir + "/none"}, 127},
		"a file that is no program": {[]string{plain}, 126},
		"a directory":               {[]string{dir}, 126},
		"nothing":                   {nil, 127},
	} {
		code, _, err := agent.Command{Args: tc.args}.Run()
		if code != tc.want || err == nil {
			t.Errorf("%s: exit code %d, %v", name, code, err)
		}
	}
}

func TestACommandHasInputOutputAndEnvironment(t *testing.T) {
	c := asCommand(t, "copy")
	var stdout, stderr safe
	c.Stdout, c.Stderr = &stdout, &stderr
	if code, _, err := c.Run(); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v", code, err)
	}
	if stdout.String() != "input" || stderr.String() != "to stderr value" {
		t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
	}
}

// No t.Parallel here: signals go to the whole process.
func TestSignalsReachTheCommandOnce(t *testing.T) {
	c := asCommand(t, "count")
	out, in := io.Pipe()
	c.Stdout = in
	type result struct {
		code     int
		signaled bool
		err      error
	}
	ended := make(chan result, 1)
	go func() {
		code, signaled, err := c.Run()
		_ = in.Close()
		ended <- result{code, signaled, err}
	}()
	lines := make(chan string)
	go func() {
		defer close(lines)
		for {
			var line string
			if _, err := fmt.Fscanln(out, &line); err != nil {
				return
			}
			lines <- line
		}
	}()
	next := func() string {
		select {
		case line := <-lines:
			return line
		case <-time.After(20 * time.Second):
			t.Fatal("nothing came")
			return ""
		}
	}
	if got := next(); got != "ready" {
		t.Fatalf("%q", got)
	}
	// SIGINT and SIGQUIT are those of a terminal, where there is one: see below.
	sent := []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2}
	for _, s := range sent {
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			t.Fatal(err)
		}
		if got := next(); got != fmt.Sprint(int(s)) {
			t.Errorf("sent %d, came %s", s, got)
		}
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := <-ended; got != (result{code: len(sent)}) {
		t.Errorf("%+v", got)
	}
	if _, more := <-lines; more {
		t.Error("a signal came twice")
	}
}
