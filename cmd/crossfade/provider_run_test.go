package main

import (
	"strings"
	"testing"
	"time"

	"crossfade/cmd/crossfade/providertest"
)

// awaitTokens waits until a number of tokens was seen, one after the other, since
// each takes its time.
func awaitTokens(t *testing.T, w *witness, worker *replaying, number int) {
	t.Helper()
	for n := 1; n <= number; n++ {
		eventually(t, "another token is sent", func() bool { _, have := w.latest(); return have >= n || worker.over() })
	}
	if worker.over() {
		t.Fatal("the worker has given up")
	}
}

func TestAPipelineOutlivesItsTokensUnrefused(t *testing.T) {
	t.Parallel()
	const life = 3 * time.Second
	b := newBetween(t, life)
	independent, builtIn := b.witness(t), b.witness(t)
	workers := map[*witness]*replaying{
		independent: replayBehind(t, independent, b.flags(providertest.ClientBasic, providertest.ResourceES256)),
		builtIn:     replayBehind(t, builtIn, b.builtInFlags(t)),
	}
	for w, worker := range workers { // at the same time
		awaitTokens(t, w, worker, 4)
		for n := 5; w.span() < 3*life; n++ {
			awaitTokens(t, w, worker, n)
		}
		if got := worker.end(); got.code != exitOK || got.stderr != "" {
			t.Errorf("the run was noticed: %v", got)
		}
		w.allWell(t)
	}
}

func TestARotationOfKeysInTheMiddleOfARunIsNotNoticed(t *testing.T) {
	t.Parallel()
	b := newBetween(t, 4*time.Second)
	independent, builtIn := b.witness(t), b.witness(t)
	workers := map[*witness]*replaying{
		independent: replayBehind(t, independent, b.flags(providertest.ClientPrivateKeyJWT, providertest.ResourceRS256)),
		builtIn:     replayBehind(t, builtIn, b.builtInFlags(t)),
	}
	for _, keep := range []bool{true, false} { // the keys of before stay for a while, and are gone at once
		keys := make(map[*witness]string)
		for w, worker := range workers {
			awaitTokens(t, w, worker, 1)
			last, _ := w.latest()
			keys[w] = last.key
		}
		b.independent.Rotate(t, keep)
		if err := b.builtIn.Rotate(); err != nil {
			t.Fatal(err)
		}
		for w, worker := range workers {
			eventually(t, "a token with the new key is sent", func() bool { last, _ := w.latest(); return last.key != keys[w] || worker.over() })
		}
	}
	for w, worker := range workers {
		if got := worker.end(); got.code != exitOK || got.stderr != "" {
			t.Errorf("the rotation was noticed: %v", got)
		}
		w.allWell(t)
	}
}

func TestAProviderThatIsAwayForHalfALifetimeIsNotMissed(t *testing.T) {
	t.Parallel()
	const life = 15 * time.Second
	b := newBetween(t, life)
	for range 3 {
		w := b.witness(t)
		agent := agentOf(t, w, b.flags(providertest.ClientBasic, providertest.ResourceES256))
		call := func() bool {
			if failure := agent.call(t); failure != "" {
				t.Errorf("refused: %s", failure)
			}
			return true
		}
		call()
		held, _ := w.latest()
		began := time.Now()
		b.independent.Kill(t)
		eventually(t, "the agent has asked in vain", func() bool { return call() && agent.said("no new token") != nil })
		away := time.Since(began)
		b.independent.Return(t)
		// The agent asks again within a second, and must do so before the last tenth
		// of the token's life. A machine that was too slow for that proves nothing.
		inTime := time.Now().Before(held.expiry.Add(-life/10 - 1300*time.Millisecond))
		if !inTime {
			t.Logf("the provider came back too late: the token ends at %s", held.expiry)
			continue
		}
		eventually(t, "another token is sent", func() bool { call(); _, n := w.latest(); return n > 1 })
		if away < life/2 {
			t.Errorf("the provider was away for %s only", away)
		}
		if talk := agent.talk(); talk != "" {
			t.Errorf("the agent said: %s", talk)
		}
		w.allWell(t)
		return
	}
	t.Fatal("this machine is too slow to let a provider come back in time")
}

func TestAProviderThatIsAwayForLongerFailsClosedAndRecovers(t *testing.T) {
	t.Parallel()
	b := newBetween(t, 4*time.Second)
	w, ofRun := b.witness(t), b.witness(t)
	agent := agentOf(t, w, b.flags(providertest.ClientBasic, providertest.ResourceES256))
	run := replayBehind(t, ofRun, b.flags(providertest.ClientPost, providertest.ResourceES256))
	awaitTokens(t, ofRun, run, 1)
	if failure := agent.call(t); failure != "" {
		t.Fatal(failure)
	}
	b.independent.Kill(t)

	var failure string
	eventually(t, "there is no token left", func() bool { failure = agent.call(t); return failure != "" })
	const hint = "connection refused: is it up, and can it be reached from here?"
	for _, want := range []string{"agent_no_token", b.independent.URL(), hint, "See to the agent's token source"} {
		if !strings.Contains(failure, want) {
			t.Errorf("%q is not in the refusal: %s", want, failure)
		}
	}
	eventually(t, "the agent says so as well", func() bool { return strings.Contains(agent.talk(), hint) })
	if talk := agent.talk(); strings.Count(talk, "REFUSED agent_no_token") != 1 || !strings.Contains(talk, b.independent.URL()) {
		t.Errorf("the agent said: %s", talk)
	}
	eventually(t, "the worker gives up", run.over)
	run.end().want(t, exitNotPermitted, "REFUSED agent_no_token", b.independent.URL(), hint)

	b.independent.Return(t)
	eventually(t, "the agent has a token again", func() bool { return agent.call(t) == "" })
	w.allWell(t)
	ofRun.allWell(t)
}
