package config

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// TemplateValues are what a first configuration is made of. Empty fields take
// the values that the comments of the template explain.
type TemplateValues struct {
	Listen   string // default ":8082" for luigi and ":8080" for http
	Upstream string // default http://127.0.0.1:8083 and http://127.0.0.1:8000
	Htpasswd string // a path as the configuration file is to name it; required
	Issuer   string // required
	Audience string // default luigi and api, to be checked by the reader
	Redis    string // a URL; default: none, with a comment that shows how
}

// Template returns a commented first configuration for a service of the given
// profile. It loads as it is once its htpasswd file exists. Paths in it are
// relative to where it will be saved.
func Template(kind string, v TemplateValues) (string, error) {
	var why string
	switch Profile(kind) {
	case ProfileLuigi:
		v.Listen = cmp.Or(v.Listen, ":8082")
		v.Upstream = cmp.Or(v.Upstream, "http://127.0.0.1:8083")
		v.Audience = cmp.Or(v.Audience, "luigi")
		why = "the scheduler's old port: no client changes"
	case ProfileHTTP:
		v.Listen = cmp.Or(v.Listen, ":8080")
		v.Upstream = cmp.Or(v.Upstream, "http://127.0.0.1:8000")
		v.Audience = cmp.Or(v.Audience, "api")
		why = "where the clients connect today"
	default:
		return "", fmt.Errorf("config: no template for %q: there are luigi and http", clip(kind))
	}
	var wrong []error
	check := func(name, value string, rule func(string) (string, error)) {
		suggestion, err := rule(value)
		if err != nil {
			wrong = append(wrong, Mistake{Key: name, Message: err.Error(), Suggestion: suggestion})
		}
	}
	present := func(value string) (string, error) {
		if value == "" {
			return "", errors.New("is missing")
		}
		return "", nil
	}
	check("htpasswd", v.Htpasswd, present)
	check("issuer", v.Issuer, checkIssuer)
	check("listen", v.Listen, checkAddress)
	check("upstream", v.Upstream, func(text string) (string, error) { return checkURL(text, "http", "https") })
	redis := "# redis: redis://localhost:6379/0"
	if v.Redis != "" {
		check("redis", v.Redis, func(text string) (string, error) { return "", checkRedis(text) })
		redis = "redis: " + quoted(v.Redis)
	}
	if err := errors.Join(wrong...); err != nil {
		return "", err
	}

	var b strings.Builder
	line := func(text, comment string) {
		if comment != "" {
			text = fmt.Sprintf("%-51s # %s", text, comment)
		}
		b.WriteString(text + "\n")
	}
	line("# A first configuration of Crossfade. It refuses nothing: it watches what would happen.", "")
	line("# Check it with `crossfade check`, then start `crossfade serve`.", "")
	line("mode: observe", "enforce when the evidence is good")
	line("listen: "+quoted(v.Listen), why)
	line("upstream:", "")
	line("  url: "+quoted(v.Upstream), "where the service itself listens from now on")
	line("  profile: "+kind, "")
	line("legacy:", "")
	line("  htpasswd: "+quoted(v.Htpasswd), "the passwords of today, unchanged")
	line("oidc:", "")
	line("  issuer: "+quoted(v.Issuer), "the claim iss of your tokens, exactly")
	line("  audience: "+quoted(v.Audience), "the claim aud that they must carry")
	line("# principals: principals.yaml", "who is who, and in which team; without it all are unassigned")
	line("# roles: roles.yaml", "who may do what; without it everyone may do everything")
	line(redis, "percentages and evidence; without it they are forgotten on exit")
	return b.String(), nil
}

// quoted writes text so that YAML reads it back as the same text.
func quoted(text string) string {
	out, err := yaml.Marshal(text)
	if err != nil || strings.Count(string(out), "\n") > 1 {
		return fmt.Sprintf("%q", text)
	}
	return strings.TrimSuffix(string(out), "\n")
}
