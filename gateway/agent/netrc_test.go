package agent_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/agent"
	"crossfade/gateway/identity"
)

func TestANetrcFileKeepsWhatIsNotOurs(t *testing.T) {
	const fresh = "machine gw login oidc password new\n"
	for name, tc := range map[string]struct{ before, after, without string }{
		"an empty file": {"", fresh, ""},
		"other machines": {
			"# mine\nmachine a login b password c\n",
			fresh + "# mine\nmachine a login b password c\n",
			"# mine\nmachine a login b password c\n",
		},
		"our own entry in the middle": {
			"machine a login b password c\nmachine gw login oidc password old\n# end\nmachine z login y password x\n",
			"machine a login b password c\n" + fresh + "# end\nmachine z login y password x\n",
			"machine a login b password c\n# end\nmachine z login y password x\n",
		},
		"our own entry over several lines": {
			"machine gw\n  login oidc\n  password old\n\nmachine z login y password x\n",
			fresh + "\nmachine z login y password x\n",
			"\nmachine z login y password x\n",
		},
		"our own entry beside another on one line": {
			"machine a login b password c machine gw login oidc password old machine z login y password x",
			"machine a login b password c \n" + fresh + " machine z login y password x",
			"machine a login b password c  machine z login y password x",
		},
		"no line break at the end": {"machine gw login oidc password old", fresh, ""},
		"our own entry, indented": {
			"machine a login b password c\n  machine gw\n\tlogin oidc password old  \n# end\n",
			"machine a login b password c\n" + fresh + "# end\n",
			"machine a login b password c\n# end\n",
		},
		"two entries of ours": {
			"machine gw login oidc password old\n#\nmachine gw password older login oidc\n",
			fresh + "#\n", "#\n",
		},
		"a default": {
			"default login anonymous password me\n",
			fresh + "default login anonymous password me\n",
			"default login anonymous password me\n",
		},
		"a machine that has our name for a password": {
			"machine a login gw password machine\nmachine b login machine password gw\n",
			fresh + "machine a login gw password machine\nmachine b login machine password gw\n",
			"machine a login gw password machine\nmachine b login machine password gw\n",
		},
		"a macro that looks like an entry": {
			"macdef init\nmachine gw login x password y\n\nmachine a login b password c\n",
			fresh + "macdef init\nmachine gw login x password y\n\nmachine a login b password c\n",
			"macdef init\nmachine gw login x password y\n\nmachine a login b password c\n",
		},
		"an entry in a comment": {
			"# machine gw login x password y\n",
			fresh + "# machine gw login x password y\n",
			"# machine gw login x password y\n",
		},
		"passwords with spaces, quotes and hashes": {
			`machine a login b password "c machine gw \" d"` + "\nmachine gw login oidc password \"o l d\"\nmachine e login f password #g\n",
			`machine a login b password "c machine gw \" d"` + "\n" + fresh + "machine e login f password #g\n",
			`machine a login b password "c machine gw \" d"` + "\nmachine e login f password #g\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			after := agent.EditNetrc(tc.before, "gw", identity.NewSecret("new"))
			if diff := cmp.Diff(tc.after, after); diff != "" {
				t.Errorf("- want, + got\n%s", diff)
			}
			if again := agent.EditNetrc(after, "gw", identity.NewSecret("new")); again != after {
				t.Errorf("a second time it is\n%s", again)
			}
			if diff := cmp.Diff(tc.without, agent.EditNetrc(tc.before, "gw", identity.Secret{})); diff != "" {
				t.Errorf("without a token: - want, + got\n%s", diff)
			}
			if user, password, ok := agent.NetrcCredential(after, "gw"); !ok || user != "oidc" || password.Reveal() != "new" {
				t.Errorf("it reads as %q %q", user, password.Reveal())
			}
		})
	}
}

func TestANetrcFileIsReadAsPythonReadsIt(t *testing.T) {
	for text, want := range map[string]string{
		"machine gw login a password b":                                  "a b",
		"machine gw\n\tpassword \"b c\"\n\tlogin a\n":                    "a b c",
		"machine gw login a password b\nmachine gw login c password d\n": "c d",
		`machine gw user a account x password b\ c`:                      "a b c",
		"machine other login a password b":                               "",
		"default login a password b":                                     "",
		"machine gw login a":                                             "",
		"machine gw login a # word\n password b":                         "a b",
		"machine":                                                        "",
		"machine gw password":                                            "",
	} {
		user, password, ok := agent.NetrcCredential(text, "gw")
		got := ""
		if ok {
			got = user + " " + password.Reveal()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzNetrc(f *testing.F) {
	for _, seed := range []string{
		"machine gw login a password b\n", "default login x password y", "macdef a\nb\n\n", `machine "gw" password "`,
		"# c\nmachine gw\\", "machine\n\ngw login", "machine gw login machine password machine machine a",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		// A file that does not begin with an entry is one that nobody reads to its
		// end; what stands there would belong to ours.
		if words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) }); len(words) > 0 && !slices.Contains([]string{"machine", "default", "macdef"}, words[0]) {
			return
		}
		edited := agent.EditNetrc(text, "gw", identity.NewSecret("new"))
		if agent.EditNetrc(edited, "gw", identity.NewSecret("new")) != edited {
			t.Fatalf("editing %q twice differs from once", text)
		}
		if !strings.Contains(edited, "machine gw login oidc password new\n") {
			t.Fatalf("%q has no entry", edited)
		}
		removed := agent.EditNetrc(edited, "gw", identity.Secret{})
		if len(removed) > len(text)+1 {
			t.Fatalf("%q grew to %q", text, removed)
		}
	})
}
