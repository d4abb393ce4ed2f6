package config

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
)

// Warnings returns what is legal but doubtful, sorted like [Errors].
func (c *Config) Warnings() []Mistake { return slices.Clone(c.warnings) }

// warn collects the warnings of a complete configuration.
func (l *loader) warn(c *Config) {
	collect := &loader{src: l.src, main: l.main}
	say := func(key, text string) { collect.bad(key, "%s", text) }

	if c.Redis.InProcess() && c.Mode == ModeEnforce {
		say("redis", "is missing: percentages and evidence live in this process and are forgotten on exit")
	}
	if u, err := url.Parse(c.Redis.URL.Reveal()); err == nil && u.Scheme == "redis" && !loopback(u.Hostname()) {
		if _, inURL := u.User.Password(); inURL || !c.Redis.Password.Empty() {
			say("redis.url", "sends the password without TLS: use rediss://")
		}
	}
	if c.PrincipalsFile == "" {
		say("principals", "is missing: everyone is in team unassigned, which stays at 0 percent")
	}
	if c.RolesFile == "" {
		say("roles", "is missing: everyone may do everything")
	}
	if !c.Legacy.Configured() {
		say("legacy", "is missing: no static credential is known, so each one is refused in mode enforce")
	}
	if len(c.OIDC.Issuers) == 0 {
		say("oidc", "is missing: no token can be verified")
	}
	if c.Admin.Address != "" && !loopbackAddress(c.Admin.Address) {
		if !c.Admin.TLS.Enabled() {
			say("admin.address", "is reachable from other machines and has no TLS: operators' tokens cross the network in the clear. Set admin.tls, or let something in front end it and listen on this machine only")
		}
		if c.Admin.Operators.Empty() && c.Admin.Leads.Empty() {
			say("admin.operators", "names nobody, and so does admin.leads: nothing can be changed over this listener")
		}
	}
	if c.Admin.Address == "" && c.Admin.TLS.Enabled() {
		say("admin.tls", "has no effect without admin.address")
	}
	if c.Mode == ModeEnforce && !c.Listen.TLS.Enabled() && !loopbackAddress(c.Listen.Address) {
		say("listen", "has no TLS: credentials cross the network in the clear unless something in front ends it")
	}
	if c.Listen.ForwardAuth != "" && slices.ContainsFunc(c.Listen.TrustedProxies, func(p netip.Prefix) bool { return p.Bits() == 0 }) {
		say("listen.trusted_proxies", "trusts every address: whoever reaches the gateway may say at listen.forward_auth which request it is about. Name the addresses of the proxies")
	}
	if c.Rollout.ColdStart == ColdStartSnapshot && c.StateDir == "" {
		say("rollout.cold_start", "is snapshot without state_dir: there is nothing to start from")
	}
	l.warnProbe(c, func(path, format string, args ...any) {
		collect.add(l.main.origin(path), shown(path), "", format, args...)
	})
	l.warnWaivers(c, func(path, suggestion, format string, args ...any) {
		collect.add(l.main.origin(path), shown(path), suggestion, format, args...)
	})
	for _, p := range c.Principals {
		say := func(path, message string) { collect.add(l.principals.origin(path), shown(path), "", "%s", message) }
		if p.Team == "" && !p.Shared {
			say(p.Name, "has no team: it is unassigned, which stays at 0 percent")
		}
		if len(p.Roles) > 0 && c.RolesFile == "" {
			say(join(p.Name, "roles"), "has no effect without a roles file")
		}
	}
	c.warnings = collect.mistakes.sorted()
}

// loopbackAddress reports whether a listener is out of reach for others.
func loopbackAddress(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && loopback(host)
}
