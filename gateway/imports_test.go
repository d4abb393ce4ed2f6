package gateway_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "crossfade"

// listed is what go list says of one package.
type listed struct {
	ImportPath                         string
	Standard                           bool
	Imports, TestImports, XTestImports []string
	Deps                               []string
}

// layers are the packages from the leaf up. A package imports lower layers and
// its own family, which are the packages below its directory; packages of one
// layer do not know each other.
var layers = [][]string{
	{"gateway/identity", "gateway/breaker"},
	{"legacy", "gateway/agent", "gateway/oidcauth", "gateway/policy", "gateway/luigi", "gateway/shadow", "gateway/throttle", "rollout"},
	{"rollout/redisstore"},
	{"gateway"},
	{"gateway/probe"},
	{"gateway/audit", "gateway/console", "gateway/telemetry"},
	{"cmd"},
}

// stores are the packages that implement what others declare, with the only
// ones of ours that they know. They stand in a layer of their own, above all of
// those whose interfaces they could implement.
var stores = map[string][]string{
	"rollout/redisstore": {"gateway/identity", "gateway/luigi", "rollout", "rollout/evidence", "rollout/fleet"},
}

// exclusive are packages of others with the only ones of ours that may import
// them, since everything else goes through those.
var exclusive = map[string][]string{
	"github.com/knadh/koanf":              {"config"},
	"github.com/xhit/go-str2duration":     {"config"},
	"github.com/coreos/go-oidc":           {"gateway/oidcauth"},
	"github.com/redis/go-redis":           {"rollout/redisstore", "cmd"},
	"github.com/alicebob/miniredis":       {"rollout/redisstore", "cmd"},
	"github.com/prometheus/client_golang": {"gateway/telemetry", "cmd"},
	"github.com/prometheus/prometheus":    {"dashboards"},
	"go.opentelemetry.io":                 {"gateway/telemetry", "cmd"},
	"github.com/spf13/cobra":              {"cmd"},
	"github.com/zitadel/oidc":             {"cmd"},
}

// silent are the packages that decide. They report by values and write no
// logs, metrics or spans of their own.
var silent = []string{"gateway", "gateway/identity", "gateway/policy", "gateway/luigi", "gateway/shadow", "gateway/probe", "rollout"}

// quiet are imports that look like output and are not, with the reason.
var quiet = map[string]string{
	"gateway/identity log/slog": "secrets redact themselves under slog",
	"gateway log":               "net/http reports broken connections to a *log.Logger that the caller brings",
}

// list asks the go command for the packages of the module. It looks at every
// source file itself as well, so that a test result of before a change in some
// other package is not taken from the cache.
func list(t *testing.T) []listed {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") {
			_, err = os.Stat(path)
		}
		if errors.Is(err, fs.ErrNotExist) { // removed in the meantime
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Standard,Imports,TestImports,XTestImports,Deps", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for in := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := in.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// ours returns the path inside the module.
func ours(path string) (short string, ok bool) { return strings.CutPrefix(path, module+"/") }

// within reports whether path is root or lies below it.
func within(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// layer returns where a package stands and the root of its family. The longest
// root wins: gateway/policy is no part of gateway.
func layer(short string) (at int, family string) {
	at = -1
	for i, roots := range layers {
		for _, root := range roots {
			fits := within(short, root)
			if root == "gateway" {
				fits = short == root
			}
			if fits && len(root) > len(family) {
				at, family = i, root
			}
		}
	}
	return at, family
}

// mayImport says why a package of ours must not import another one, "" if it
// may.
func mayImport(from, to string) string {
	switch {
	case within(from, "config"):
		return "config imports nothing of ours"
	case within(to, "config"):
		if within(from, "cmd") {
			return ""
		}
		return "only cmd imports config"
	case from == "gateway" && (within(to, "legacy") || within(to, "gateway/oidcauth")):
		return "gateway knows its authenticators by their interface only"
	case within(to, "gateway/agent") && !within(from, "gateway/agent") && !within(from, "cmd"):
		return "the agent is the client half: only cmd knows it"
	}
	fromLayer, fromFamily := layer(from)
	toLayer, toFamily := layer(to)
	known, isStore := stores[fromFamily]
	switch {
	case fromLayer < 0:
		return fmt.Sprintf("%s stands in no layer: add it to the table", from)
	case toLayer < 0:
		return fmt.Sprintf("%s stands in no layer: add it to the table", to)
	case isStore && fromFamily != toFamily && !slices.Contains(known, toFamily):
		return fmt.Sprintf("%s knows %s only", fromFamily, strings.Join(known, " and "))
	case fromFamily == toFamily, toLayer < fromLayer:
		return ""
	case toLayer == fromLayer:
		return "siblings do not import each other"
	default:
		return "imports run one way, from cmd down to identity"
	}
}

func TestImportsRunOneWay(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		from, ok := ours(p.ImportPath)
		if !ok {
			continue
		}
		for _, path := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			to, ok := ours(path)
			if !ok || to == from {
				continue
			}
			if why := mayImport(from, to); why != "" {
				t.Errorf("%s imports %s: %s", from, to, why)
			}
		}
	}
}

func TestOtherPeoplesPackagesStayWhereTheyBelong(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, p := range list(t) {
		from, ok := ours(p.ImportPath)
		if !ok {
			continue
		}
		for _, path := range p.Imports {
			for prefix, homes := range exclusive {
				if !within(path, prefix) {
					continue
				}
				seen[prefix] = true
				if !slices.ContainsFunc(homes, func(home string) bool { return within(from, home) }) {
					t.Errorf("%s imports %s, which belongs to %s alone", from, path, strings.Join(homes, " and "))
				}
			}
		}
	}
	for _, prefix := range []string{"github.com/coreos/go-oidc", "github.com/redis/go-redis", "github.com/prometheus/client_golang", "go.opentelemetry.io"} {
		if !seen[prefix] {
			t.Errorf("nobody imports %s: has its path changed?", prefix)
		}
	}
}

func TestTheDecisionCoreIsSilent(t *testing.T) {
	t.Parallel()
	loud := []string{"log", "log/slog", "log/syslog", "expvar"}
	used := map[string]bool{}
	found := 0
	for _, p := range list(t) {
		from, ok := ours(p.ImportPath)
		if !ok || !slices.Contains(silent, from) {
			continue
		}
		found++
		for _, path := range p.Imports {
			pair := from + " " + path
			if _, reasoned := quiet[pair]; reasoned {
				used[pair] = true
				continue
			}
			if slices.Contains(loud, path) {
				t.Errorf("%s imports %s: report by a value and let telemetry write", from, path)
			}
		}
		for _, path := range p.Deps {
			for _, prefix := range []string{"go.opentelemetry.io", "github.com/prometheus", "github.com/knadh/koanf", "github.com/coreos/go-oidc", "github.com/redis"} {
				if within(path, prefix) {
					t.Errorf("%s depends on %s", from, path)
				}
			}
		}
	}
	if found != len(silent) {
		t.Errorf("found %d of %d packages of the core", found, len(silent))
	}
	for pair, why := range quiet {
		if !used[pair] {
			t.Errorf("the exception %q (%s) is not needed any more", pair, why)
		}
	}
}

func TestTheImportRuleTellsRightFromWrong(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		from, to string
		allowed  bool
	}{
		{"gateway/policy", "gateway/identity", true},
		{"gateway", "rollout", true},
		{"gateway", "gateway/shadow", true},
		{"gateway/telemetry", "gateway", true},
		{"gateway/audit", "gateway/luigi", true},
		{"gateway/probe", "gateway", true},
		{"gateway/telemetry", "gateway/probe", true},
		{"cmd/crossfade", "config", true},
		{"cmd/crossfade/app", "cmd/crossfade/demo", true},
		{"rollout/redisstore", "rollout", true},
		{"rollout/redisstore", "rollout/rollouttest", true},
		{"rollout/redisstore", "gateway/identity", true},
		{"rollout/redisstore", "gateway/luigi", true},
		{"rollout/redisstore", "gateway/luigi/luigitest", true},
		{"cmd/crossfade", "rollout/redisstore", true},
		{"rollout", "rollout/rollouttest", true},
		{"gateway/luigi", "gateway/luigi/luigitest", true},
		{"gateway/luigi/luigitest", "gateway/luigi", true},
		{"gateway/luigi", "gateway/luigi/captures", true},
		{"gateway/identity", "rollout", false},
		{"gateway/policy", "gateway/shadow", false},
		{"legacy", "gateway", false},
		{"rollout/redisstore", "legacy", false},
		{"rollout/redisstore", "gateway/policy", false},
		{"rollout/redisstore", "gateway", false},
		{"rollout", "rollout/redisstore", false},
		{"rollout", "gateway/luigi", false},
		{"gateway/luigi", "rollout/redisstore", false},
		{"gateway/luigi/luigitest", "rollout", false},
		{"gateway", "legacy", false},
		{"gateway", "gateway/oidcauth", false},
		{"gateway/agent", "gateway/agent/token", true},
		{"gateway/agent", "gateway/identity", true},
		{"gateway/agent", "gateway", false},
		{"gateway/agent", "gateway/luigi", false},
		{"gateway", "gateway/agent", false},
		{"gateway", "gateway/probe", false},
		{"gateway/probe", "gateway/agent", false},
		{"gateway", "gateway/telemetry", false},
		{"gateway/console", "gateway/telemetry", false},
		{"gateway/audit", "gateway/telemetry", false},
		{"rollout/redisstore", "gateway/audit", false},
		{"gateway", "cmd/crossfade", false},
		{"gateway/telemetry", "config", false},
		{"config", "gateway/identity", false},
		{"gateway/newcomer", "gateway", false},
		{"gateway", "gateway/newcomer", false},
	} {
		if why := mayImport(tt.from, tt.to); (why == "") != tt.allowed {
			t.Errorf("%s imports %s: %q, allowed should be %v", tt.from, tt.to, why, tt.allowed)
		}
	}
}
