package config_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"crossfade/config"
)

func TestASecretShowsItselfInNoWay(t *testing.T) {
	const value = "hunter2"
	secret := config.NewSecret(value)
	address := config.NewSecretURL("redis://me:" + value + "@redis:6379/0?sentinel_password=" + value + "&db=1")
	if secret.Reveal() != value || secret.Empty() || !strings.Contains(address.Reveal(), value) || address.Empty() {
		t.Fatal("a secret does not reveal itself")
	}
	c := load(t, config.Source{Dir: t.TempDir(), Partial: true, Flags: map[string]any{
		"redis.url": "redis://redis:6379/0?password=" + value, "redis.password": value,
	}})
	held := struct {
		Secret  config.Secret
		Pointer *config.Secret
		URL     config.SecretURL
		List    []config.Secret
		Map     map[string]config.SecretURL
		Any     any
	}{secret, &secret, address, []config.Secret{secret}, map[string]config.SecretURL{"a": address}, address}

	for name, thing := range map[string]any{
		"secret": secret, "pointer": &secret, "URL": address, "pointer to URL": &address, "struct": held, "pointer to struct": &held,
		"configuration": c, "configuration by value": *c, "redis": c.Redis,
	} {
		var out bytes.Buffer
		for _, verb := range strings.Split("v +v #v s q x X d t b o c U e g p w T 10s -10v +q #x", " ") {
			fmt.Fprintf(&out, "%"+verb+"\n", thing)
		}
		fmt.Fprintln(&out, thing)
		fmt.Fprintln(&out, errors.Join(fmt.Errorf("wrapped: %v", thing)))
		if text, err := json.Marshal(thing); err == nil {
			out.Write(text)
		} else {
			t.Errorf("%s: JSON: %v", name, err)
		}
		text, err := yaml.Marshal(thing)
		if err != nil {
			t.Errorf("%s: YAML: %v", name, err)
		}
		out.Write(text)
		if text, err := xml.Marshal(thing); err == nil {
			out.Write(text)
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("log", "thing", thing)
		slog.New(slog.NewTextHandler(&out, nil)).Info("log", "thing", thing)
		if i := strings.Index(out.String(), value); i >= 0 {
			t.Errorf("%s shows the secret: ...%s", name, out.String()[max(0, i-80):i+len(value)])
		}
		for _, hex := range []string{fmt.Sprintf("%x", value), fmt.Sprintf("%X", value)} {
			if strings.Contains(out.String(), hex) {
				t.Errorf("%s shows the secret in hex", name)
			}
		}
	}
	var out bytes.Buffer
	if err := c.WriteYAML(&out); err != nil || strings.Contains(out.String(), value) || !strings.Contains(out.String(), "[redacted]") {
		t.Errorf("effective configuration: %v\n%s", err, &out)
	}
}

func TestASecretURLShowsItsPlace(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"", ""},
		{"redis://redis:6379/0", "redis://redis:6379/0"},
		{"redis://me@redis", "redis://me@redis"},
		{"redis://me:pw@redis/1", "redis://me:[redacted]@redis/1"},
		{"rediss://:pw@redis", "rediss://:[redacted]@redis"},
		{"redis://redis?db=2&Password=pw", "redis://redis?db=2&Password=[redacted]"},
		{"unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"},
		{"redis:me:pw@host", "redis://[redacted]"},
		{"redis://me:p w@host:x", "[redacted]"},
		{"redis://h?%70assword=pw", "redis://h?%70assword=[redacted]"},
	} {
		if got := config.NewSecretURL(tt.url).String(); got != tt.want {
			t.Errorf("%q prints as %q, want %q", tt.url, got, tt.want)
		}
	}
}
