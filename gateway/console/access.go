package console

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"crossfade/gateway/identity"
)

// Access names who may do something: members of any of the groups, and the
// principals. The zero value is nobody.
type Access struct{ Groups, Principals []string }

func (a Access) names(auth *identity.Authentication) bool {
	if slices.Contains(a.Principals, auth.Principal.Name) {
		return true
	}
	return auth.Token != nil && slices.ContainsFunc(auth.Token.Groups, func(g string) bool { return slices.Contains(a.Groups, g) })
}

// caller is who a request is from, and what that allows. The zero value is a
// stranger, who may do nothing.
type caller struct {
	// name is the principal's; "" for whoever only reads on this machine.
	name string
	// verified tells that a token proves the name.
	verified bool
	team     identity.Team
	token    *identity.TokenInfo
	// reads, leads and operates are the rights; leads is over team alone.
	reads, leads, operates bool
	// known tells that there was a good credential.
	known bool
}

// oneTimeName is the actor of changes by the one-time token. Whose hands it is in
// nobody can tell, so it is never verified.
const oneTimeName = "one-time token"

// mayChange reports whether the caller may change a team.
func (w caller) mayChange(team identity.Team) bool {
	return w.operates || w.leads && w.team == team && team != "" && team != identity.Unassigned
}

// admit settles who a request is from and whether it may read at all.
func (c *Console) admit(r *http.Request) (caller, *problem) {
	local := c.o.Loopback && fromHere(r)
	if local && !loopbackName(r.Host) {
		return caller{}, refuse(http.StatusMisdirectedRequest, hostUnknown,
			fmt.Sprintf("This listener answers to names of this machine only, not to %q.", r.Host),
			"Use 127.0.0.1 or localhost with its port; what stands in front must say so by X-Forwarded-For.")
	}
	if !sameSite(r) {
		return caller{}, refuseFor(http.StatusForbidden, identity.CrossSite,
			"A page of another site made this request.", "Use a page of this address, or a program.")
	}
	who, refusal := c.identify(r, local)
	if refusal != nil {
		return who, refusal
	}
	if local {
		who.reads = true
	}
	switch {
	case who.reads:
		return who, nil
	case who.known:
		c.o.Log.Warn("an admin request was refused", "actor", who.name, "reason", identity.ActionDenied, "method", r.Method, "path", r.URL.Path)
		return who, refuseFor(http.StatusForbidden, identity.ActionDenied,
			fmt.Sprintf("%s may not read this.", who.name), "Ask the platform team to be named under admin.viewers, admin.leads or admin.operators.")
	default:
		return who, unauthorised(identity.TokenAbsent, "This needs a token.")
	}
}

// identify judges the credential of a request, if it has one. A bad one is
// refused, also where none is needed.
func (c *Console) identify(r *http.Request, local bool) (caller, *problem) {
	values := r.Header["Authorization"]
	if len(values) == 0 {
		return caller{}, nil
	}
	scheme, text, _ := strings.Cut(values[0], " ")
	text = strings.TrimSpace(text)
	switch {
	case len(values) > 1:
		return caller{}, unauthorised(identity.MultipleCredentials, "There are two Authorization headers.")
	case !strings.EqualFold(scheme, "Bearer") || text == "":
		return caller{}, unauthorised(identity.SchemeUnsupported, "Only Bearer tokens are good here; passwords and keys are not.")
	case c.isOneTime(text):
		if !local {
			return caller{}, unauthorised(identity.SchemeUnsupported, "The one-time token is good on the gateway's own machine only.")
		}
		return caller{name: oneTimeName, reads: true, operates: true, known: true}, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	auth := c.o.Tokens.Authenticate(ctx, identity.Credential{Scheme: identity.SchemeOIDC, Secret: identity.NewSecret(text)})
	if !auth.OK() {
		return caller{}, tokenProblem(auth)
	}
	who := caller{
		name: auth.Principal.Name, verified: true, team: auth.Principal.Team, token: auth.Token, known: true,
		leads: c.o.Leads.names(auth), operates: c.o.Operators.names(auth),
	}
	who.reads = who.leads || who.operates || c.o.Viewers.names(auth)
	return who, nil
}

func (c *Console) isOneTime(text string) bool {
	if c.o.OneTime.Empty() {
		return false
	}
	// Digests are of one length, whatever is sent.
	sent, own := sha256.Sum256([]byte(text)), sha256.Sum256([]byte(c.o.OneTime.Reveal()))
	return subtle.ConstantTimeCompare(sent[:], own[:]) == 1
}

// tokenProblem says what is wrong with a token.
func tokenProblem(auth *identity.Authentication) *problem {
	reason := auth.Primary()
	info, _ := reason.Info()
	if auth.Status == identity.StatusUnavailable || info.Indeterminate {
		p := refuseFor(http.StatusServiceUnavailable, reason, info.Means, "Try again in a moment.")
		p.retryAfter = "5"
		return p
	}
	return unauthorised(reason, info.Means)
}

// fromHere reports whether the other end of the connection is on this machine and
// nothing says that it passes on what another one sent.
func fromHere(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via"} {
		if len(r.Header[name]) > 0 {
			return false
		}
	}
	return clientOf(r).IsLoopback()
}

// clientOf is the other end of the connection.
func clientOf(r *http.Request) netip.Addr {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return from.Addr().Unmap()
}

// loopbackName reports whether a Host is a name that only this machine has for
// itself, with any port: tunnels have their own.
func loopbackName(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if strings.EqualFold(name, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.IsLoopback()
}

// sameSite reports whether a request was made by no browser, or by a page of the
// address that it is for; see Fetch Metadata, section 2.3, and RFC 6454, section
// 7. A header that is there twice says nothing good. What the user typed is read
// only.
func sameSite(r *http.Request) bool {
	if site := r.Header["Sec-Fetch-Site"]; len(site) > 0 {
		typed := site[0] == "none" && (r.Method == http.MethodGet || r.Method == http.MethodHead)
		if len(site) > 1 || site[0] != "same-origin" && !typed {
			return false
		}
	}
	origin := r.Header["Origin"]
	if len(origin) == 0 {
		return true
	}
	u, err := url.Parse(origin[0])
	return len(origin) == 1 && err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}
