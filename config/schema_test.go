package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"crossfade/config"
)

func sortedStrings(less func(a, b string) bool) cmp.Option { return cmpopts.SortSlices(less) }

// keys lists the dotted keys of the structs with their types.
func keys(t reflect.Type, prefix string, visit func(key string, t reflect.Type)) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("koanf"), ",")
		switch {
		case option == "squash":
			keys(f.Type, prefix, visit)
		case name == "" || name == "-":
		default:
			visit(prefix+name, f.Type)
			if f.Type.Kind() == reflect.Struct && f.Type.PkgPath() == t.PkgPath() {
				keys(f.Type, prefix+name+".", visit)
			}
		}
	}
}

func TestEveryKeyHasAVariableOfItsOwn(t *testing.T) {
	seen := map[string]string{}
	keys(reflect.TypeFor[config.Config](), "", func(key string, _ reflect.Type) {
		name := config.Variable(key)
		if other, taken := seen[name]; taken {
			t.Errorf("%s and %s share %s", other, key, name)
		}
		seen[name] = key
	})
	for _, reserved := range []string{"CROSSFADE_CONFIG", "CROSSFADE_TOKEN", "CROSSFADE_TOKEN_FILE", "CROSSFADE_SCHEDULER_URL"} {
		if key, taken := seen[reserved]; taken {
			t.Errorf("the variable of %s is reserved", key)
		}
	}
}

func TestEverySecretCanComeFromAFile(t *testing.T) {
	all := map[string]bool{}
	var secrets []string
	keys(reflect.TypeFor[config.Config](), "", func(key string, typ reflect.Type) {
		all[key] = true
		if typ == reflect.TypeFor[config.Secret]() || typ == reflect.TypeFor[config.SecretURL]() {
			secrets = append(secrets, key)
		}
	})
	if len(secrets) < 2 {
		t.Fatalf("secrets: %v", secrets)
	}
	for _, key := range secrets {
		if !all[key+"_file"] {
			t.Errorf("%s has no %s_file", key, key)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, tt := range []struct {
		text, want string
		bytes      int64
	}{
		{"0", "0", 0},
		{"1024", "1KiB", 1024},
		{"4MiB", "4MiB", 4 << 20},
		{"4 MiB", "4MiB", 4 << 20},
		{"1MB", "1000000", 1e6},
		{"2kB", "2000", 2000},
		{"1GiB", "1GiB", 1 << 30},
		{"7B", "7", 7},
	} {
		var s config.Size
		if err := s.UnmarshalText([]byte(tt.text)); err != nil || int64(s) != tt.bytes || s.String() != tt.want {
			t.Errorf("%q: got %d, %s, %v", tt.text, s, s, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5MiB", "9999999999GiB", "4 TiB", "0x10"} {
		var s config.Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is accepted as %d", text, s)
		}
	}
}

// FuzzLoad loads whatever there is: it must end with a configuration or with
// mistakes, and what it accepts must load again to the same.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/good/f*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(content, []byte("svc: { team: a, oidc: { subject: x } }"), "CROSSFADE_REDIS_URL=redis://:p@h", "drain", "3s")
		}
	}
	f.Add([]byte("principals: p.yaml\nroles: p.yaml\noidc: { deny: p.yaml }"), []byte("? [a]\n: &x [*x]"), "CROSSFADE_LISTEN=\x00", "listen..", "")
	f.Add([]byte("a: &a [*a]\nexempt: *a"), []byte("roles: { r: { view: '*' } }"), "CROSSFADE_=", "", "off")
	f.Fuzz(func(t *testing.T, main, second []byte, env, flag, value string) {
		dir := t.TempDir()
		src := config.Source{
			File: write(t, dir, "crossfade.yaml", string(main)), Dir: dir, Env: []string{env}, Flags: map[string]any{flag: value},
		}
		write(t, dir, "p.yaml", string(second))
		c, err := config.Load(src)
		if err != nil {
			var wrong config.Errors
			if !errors.As(err, &wrong) || len(wrong) == 0 {
				t.Fatalf("not a list of mistakes: %v", err)
			}
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if line == "" || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' }) {
					t.Errorf("not a readable line: %q", line)
				}
			}
			return
		}
		if again := load(t, src); again.Hash() != c.Hash() {
			t.Error("loads differently the second time")
		}
		_, _ = c.Files(), c.Warnings()
	})
}
