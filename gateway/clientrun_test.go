package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"crossfade/gateway"
)

func TestTheClientsNameForItsRunIsNotedAndStaysInTheGateway(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("r", 128)
	for name, tc := range map[string]struct {
		sent []string
		want string
	}{
		"none":                       {nil, ""},
		"one of a CI":                {[]string{"gh-4711.1:etl_nightly"}, "gh-4711.1:etl_nightly"},
		"the longest":                {[]string{longest}, longest},
		"one that is longer":         {[]string{longest + "r"}, ""},
		"an empty one":               {[]string{""}, ""},
		"two":                        {[]string{"a", "b"}, ""},
		"one that would move a line": {[]string{"a b"}, ""},
		"one that is no ASCII":       {[]string{"lauf-ä"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, mode := range []gateway.Mode{gateway.Observe, gateway.Enforce} {
				up := newUpstream(t, nil)
				s := newStage(up.URL)
				s.Mode = mode
				s.start(t)
				headers := []string{"Authorization", "Bearer " + goodToken}
				for _, value := range tc.sent {
					headers = append(headers, gateway.RunHeader, value)
				}
				resp, _ := s.do(t, http.MethodPost, "/", "", headers...)
				if resp.StatusCode != http.StatusOK {
					t.Errorf("%s: status %d: a name is worth no refusal", mode, resp.StatusCode)
				}
				if got := s.event().ClientRun; got != tc.want {
					t.Errorf("%s: the event has %q, want %q", mode, got, tc.want)
				}
				if values, there := up.last(t).header[gateway.RunHeader]; there {
					t.Errorf("%s: the upstream saw %q", mode, values)
				}
			}
		})
	}
}

func TestToLookForTheNameOfARunCostsNothing(t *testing.T) {
	for name, h := range map[string]http.Header{
		"none": {"Authorization": {"Bearer x"}}, "one": {gateway.RunHeader: {"nightly-4711"}},
	} {
		if n := testing.AllocsPerRun(100, func() { gateway.ClientRun(h) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
