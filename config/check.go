package config

import (
	"crypto/tls"
	"net"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// broken reports whether a mistake was noted at path, below it or above it:
// then what follows from its value is not worth a second line.
func (d *document) broken(path string) bool {
	if d.failed[""] {
		return true
	}
	for failed := range d.failed {
		if failed == path || strings.HasPrefix(failed, path+sep) || strings.HasPrefix(path, failed+sep) {
			return true
		}
	}
	return false
}

// bad notes a mistake at a key of the merged configuration, unless one is
// noted there already.
func (l *loader) bad(key, format string, args ...any) {
	path := strings.ReplaceAll(key, ".", sep)
	if l.main.broken(path) {
		return
	}
	l.add(l.main.origin(path), key, "", format, args...)
}

// complete fills in what follows from other values, reads the files that
// belong to the configuration and checks the whole.
func (l *loader) complete(c *Config) error {
	l.inlineIssuer(c)
	if c.Rollout.Stickiness == "" {
		c.Rollout.Stickiness = StickinessPrincipal
		if c.Upstream.Profile == ProfileLuigi {
			c.Rollout.Stickiness = StickinessPipeline
		}
	}
	if err := l.loadRoles(c); err != nil {
		return err
	}
	if err := l.loadPrincipals(c); err != nil {
		return err
	}
	if err := l.loadDeny(c); err != nil {
		return err
	}
	l.checkFiles(reflect.ValueOf(*c), "")
	l.checkListeners(c)
	l.checkUpstream(c)
	l.checkForwardAuth(c)
	l.checkLegacy(c)
	l.checkIssuers(c)
	l.checkRedis(c)
	l.checkAudit(c)
	l.checkReadiness(c)
	l.checkProbe(c)
	l.warn(c)
	return nil
}

// inlineIssuer moves the issuer that stands inline to the list.
func (l *loader) inlineIssuer(c *Config) {
	inline := c.OIDC.Inline
	c.OIDC.Inline = Issuer{}
	switch listed := len(c.OIDC.Issuers) > 0; {
	case inline.Issuer != "" && listed:
		l.bad("oidc.issuers", "stands beside an inline oidc.issuer: put all into the list")
	case inline.Issuer != "":
		inline.Audience, inline.Audiences = l.higher("oidc.audience", "oidc.audiences", inline.Audience, inline.Audiences)
		c.OIDC.Issuers = []Issuer{inline}
	default:
		for _, f := range fields(reflect.TypeFor[Issuer]()) {
			if p, ok := l.main.origins[join("oidc", f.name)]; ok && f.name != "issuer" {
				if listed {
					l.add(p, "oidc."+f.name, "", "belongs to one issuer: move it into the list")
				} else if !l.main.broken(join("oidc", "issuer")) && !l.main.broken(join("oidc", "issuers")) {
					l.add(p, "oidc."+f.name, "", "has no effect without oidc.issuer")
				}
			}
		}
	}
}

// higher returns two lists of which a higher layer hides the other.
func (l *loader) higher(a, b string, va, vb []string) (fa, fb []string) {
	switch l.compare(a, b) {
	case 1:
		return va, nil
	case -1:
		return nil, vb
	default:
		return va, vb
	}
}

// compare says which of two keys that mean the same comes from a higher layer.
func (l *loader) compare(a, b string) int {
	pa, okA := l.main.origins[strings.ReplaceAll(a, ".", sep)]
	pb, okB := l.main.origins[strings.ReplaceAll(b, ".", sep)]
	if !okA || !okB {
		return 0
	}
	return sign(int64(pa.layer - pb.layer))
}

// loadDeny adds the entries of the deny file to those that stand inline.
func (l *loader) loadDeny(c *Config) error {
	if c.OIDC.Deny.File == "" {
		return nil
	}
	var more Deny
	d, err := l.subfile(c.OIDC.Deny.File, join("oidc", "deny"), &more)
	if d == nil || err != nil {
		return err
	}
	if more.File != "" {
		l.add(d.origin("file"), "file", "", "a deny file cannot name another one")
	}
	deny := &c.OIDC.Deny
	deny.Subjects = union(deny.Subjects, more.Subjects)
	deny.TokenIDs = union(deny.TokenIDs, more.TokenIDs)
	if more.IssuedBefore.After(deny.IssuedBefore) {
		deny.IssuedBefore = more.IssuedBefore
	}
	return nil
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

func (l *loader) checkListeners(c *Config) {
	taken := map[string]string{}
	for _, listener := range []struct{ key, address string }{
		{"listen.address", c.Listen.Address}, {"metrics.address", c.Metrics.Address}, {"admin.address", c.Admin.Address},
	} {
		_, port, err := net.SplitHostPort(listener.address)
		if err != nil || port == "0" {
			continue
		}
		if other, ok := taken[listener.address]; ok {
			l.bad(listener.key, "is %s like %s: each listener needs its own", listener.address, other)
		}
		taken[listener.address] = listener.key
	}
	l.checkTLS("listen", c.Listen.TLS)
	l.checkTLS("admin", c.Admin.TLS)
}

// checkTLS tries the certificate of a listener.
func (l *loader) checkTLS(listener string, pair TLS) {
	key := listener + ".tls"
	switch {
	case (pair.Cert == "") != (pair.Key == ""):
		l.bad(key, "needs both cert and key")
	case pair.Enabled() && !l.main.broken(strings.Join([]string{listener, "tls"}, sep)):
		if _, err := tls.LoadX509KeyPair(string(pair.Cert), string(pair.Key)); err != nil {
			l.bad(key, "certificate and key cannot be used: %s", err)
		}
	}
}

func (l *loader) checkUpstream(c *Config) {
	switch u := c.Upstream.URL; {
	case u == nil && c.Listen.ForwardAuth == "" && !l.main.broken(join("listen", "forward_auth")):
		if l.src.Partial {
			return
		}
		l.bad("upstream.url", "is missing: say where the service is, by --upstream http://host:port, %s or upstream.url in a configuration file", Variable("upstream.url"))
		return
	case u != nil && (u.RawQuery != "" || u.Fragment != ""):
		l.bad("upstream.url", "must be a URL without query and fragment")
	}
	if c.Upstream.Profile == ProfileHTTP && c.Rollout.Stickiness == StickinessPipeline {
		l.bad("rollout.stickiness", "profile http knows no pipelines: use principal, or set upstream.profile to luigi")
	}
}

// checkForwardAuth sees to it that nobody but a proxy that is named can ask about the
// requests of others.
func (l *loader) checkForwardAuth(c *Config) {
	const key = "listen.forward_auth"
	switch path := c.Listen.ForwardAuth; {
	case path == "":
	case c.Upstream.Profile == ProfileLuigi:
		l.bad(key, "is for profile http: what a worker asks of Luigi stands in the body, which a proxy that asks does not send. Leave it out, and let the proxy forward to the gateway")
	case len(c.Listen.TrustedProxies) == 0:
		l.bad(key, "needs listen.trusted_proxies: name the addresses of the proxies that may ask, since whoever may ask says which request it is about and whose address it came from")
	case strings.HasPrefix(path, "/.well-known/"):
		l.bad(key, "is under /.well-known/, which is reserved (RFC 8615): use a path like /auth")
	case slices.Contains(c.Exempt.Paths, path):
		l.bad(key, "stands among the exempt paths, too: use a path that the service does not have")
	}
}

func (l *loader) checkLegacy(c *Config) {
	headers := []struct{ key, name string }{
		{"legacy.api_keys.header", c.Legacy.APIKeys.Header},
		{"headers.user", c.Headers.User},
		{"headers.email", c.Headers.Email},
		{"headers.groups", c.Headers.Groups},
		{"headers.auth_request_user", c.Headers.AuthRequestUser},
		{"headers.auth_request_email", c.Headers.AuthRequestEmail},
		{"headers.auth_request_groups", c.Headers.AuthRequestGroups},
	}
	taken := map[string]string{}
	for _, h := range headers {
		if h.name == "" {
			continue
		}
		// Upstreams that speak CGI cannot tell - from _ (RFC 3875 section 4.1.18).
		plain := strings.ToLower(strings.ReplaceAll(h.name, "_", "-"))
		if other, ok := taken[plain]; ok {
			l.bad(h.key, "is the header %s like %s: each needs its own", h.name, other)
			continue
		}
		taken[plain] = h.key
	}
}

func (l *loader) checkIssuers(c *Config) {
	seen := map[string]bool{}
	for i := range c.OIDC.Issuers {
		issuer := &c.OIDC.Issuers[i]
		key := "oidc"
		if _, listed := l.main.origins[strings.Join([]string{"oidc", "issuers", index(i)}, sep)]; listed {
			key = "oidc.issuers." + index(i)
		}
		issuer.Audiences = append(issuer.Audiences, issuer.Audience...)
		issuer.Audience = nil
		at := strings.ReplaceAll(key, ".", sep)
		report := func(field, format string, args ...any) {
			path := join(at, field)
			if l.main.broken(path) {
				return
			}
			p, ok := l.main.origins[path]
			if !ok { // what is missing is missing beside the issuer
				p = l.main.origin(join(at, "issuer"))
				p.key = ""
			}
			l.add(p, shown(path), "", format, args...)
		}
		switch {
		case issuer.Issuer == "":
			report("issuer", "is missing")
		case seen[issuer.Issuer]:
			report("issuer", "stands twice")
		}
		seen[issuer.Issuer] = true
		if len(issuer.Audiences) == 0 && len(issuer.AuthorizedParties) == 0 && !l.main.broken(join(at, "audience")) {
			report("audiences", "is missing: without it a token for any other service would be good here")
		}
	}
}

func (l *loader) checkRedis(c *Config) {
	r := &c.Redis
	if text, ok := l.secretFile("redis.url", "redis.url_file", !r.URL.Empty(), &r.URLFile); ok {
		if err := checkRedis(text); err != nil {
			l.bad("redis.url_file", "the content of %s %s", r.URLFile, err)
			return
		}
		r.URL = NewSecretURL(text)
	}
	if text, ok := l.secretFile("redis.password", "redis.password_file", !r.Password.Empty(), &r.PasswordFile); ok {
		r.Password = NewSecret(text)
	}
	u, err := url.Parse(r.URL.Reveal())
	if err != nil {
		return // said already
	}
	if _, has := u.User.Password(); has && !r.Password.Empty() {
		l.bad("redis.password", "stands in redis.url already: leave one out")
	}
	if u.User.Username() != "" && r.Username != "" {
		l.bad("redis.username", "stands in redis.url already: leave one out")
	}
	if r.CAFile != "" && u.Scheme != "rediss" && !r.URL.Empty() {
		l.bad("redis.ca_file", "needs a rediss:// URL: this connection has no TLS")
	}
	if r.URL.Empty() && !r.Password.Empty() && !l.main.broken("redis") {
		l.bad("redis.password", "has no effect without redis.url")
	}
}

func (l *loader) checkAudit(c *Config) {
	a := &c.Audit
	if a.Required && a.Off() {
		l.bad("audit.required", "needs a place to write to: set audit.file or audit.stdout")
	}
	if a.Stdout && c.AccessLog.File == "-" {
		l.bad("audit.stdout", "shares the standard output with access_log: send one of them to a file")
	}
	switch filepath.Base(string(a.File)) {
	case "-":
		l.bad("audit.file", "is no file: audit.stdout: true writes to the standard output")
	case "off":
		l.bad("audit.file", "is no file: leave it out to keep no audit trail")
	}
	if a.File != "" && a.File == c.AccessLog.File {
		l.bad("audit.file", "is the file of access_log, too: each needs its own")
	}
}

// secretFile reads the file that holds a secret. A secret and its file at once
// are a mistake in one source; else the higher source counts, and a file that
// does not is emptied.
func (l *loader) secretFile(key, fileKey string, set bool, named *Path) (string, bool) {
	file := *named
	if file == "" {
		return "", false
	}
	if set {
		switch l.compare(key, fileKey) {
		case 0:
			l.bad(fileKey, "stands beside %s: leave one out", key)
			return "", false
		case 1:
			*named = ""
			return "", false
		}
	}
	content, err := readBounded(string(file))
	if err != nil {
		l.bad(fileKey, "cannot read %s: %s", file, err)
		return "", false
	}
	text := strings.TrimRight(string(content), "\r\n")
	if text == "" {
		l.bad(fileKey, "%s is empty", file)
		return "", false
	}
	return text, true
}
