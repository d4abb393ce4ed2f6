package agent

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// hostsOf are the names under which a request may address the agent. A page of
// another site whose name was made to point here (DNS rebinding) names itself.
func hostsOf(listen net.Addr) map[string]bool {
	tcp, ok := listen.(*net.TCPAddr)
	if !ok {
		return nil
	}
	return map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true, tcp.IP.String(): true}
}

// accept refuses what is no request of a worker to the gateway, and returns the
// path and query of one that is.
func (p *Proxy) accept(w http.ResponseWriter, r *http.Request) (*url.URL, bool) {
	switch {
	case r.Method == http.MethodConnect, r.URL.Host != "", r.URL.Scheme != "":
		writeProblem(w, http.StatusMisdirectedRequest, problem{
			Reason: reasonNotOurs, Message: "The agent is no proxy for other servers.",
			Do: "Put it into the scheduler's URL, and 127.0.0.1 into no_proxy.",
		})
		return nil, false
	case !p.knows(r.Host):
		writeProblem(w, http.StatusMisdirectedRequest, problem{
			Reason: reasonNotOurs, Message: "The Host of the request is not the agent's.",
			Do: "Address the agent as 127.0.0.1 or localhost.",
		})
		return nil, false
	case !sameSite(r):
		writeProblem(w, http.StatusForbidden, problem{
			Reason: reasonCrossSite, Message: "A page of another site sent the request.",
			Do: "Open the gateway itself in the browser: the agent is for workers.",
		})
		return nil, false
	}
	path, raw, ok := p.cutSecret(r.URL)
	if !ok {
		writeProblem(w, http.StatusNotFound, problem{
			Reason: reasonNotOurs, Message: "The path is not under the agent's secret.",
			Do: "Use the whole URL that the agent gave to its command (CROSSFADE_SCHEDULER_URL).",
		})
		return nil, false
	}
	return &url.URL{Path: path, RawPath: raw, RawQuery: r.URL.RawQuery, ForceQuery: r.URL.ForceQuery}, true
}

// knows reports whether a Host header names the agent.
func (p *Proxy) knows(host string) bool {
	if p.hosts == nil {
		return true
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]"))
	if p.hosts[name] {
		return true
	}
	if ip, err := netip.ParseAddr(name); err == nil { // in another spelling perhaps
		name = ip.Unmap().String()
	}
	return p.hosts[name]
}

// sameSite reports whether no browser says that a page of another site sent the
// request. Workers say nothing.
func sameSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host == r.Host
}

// cutSecret takes the secret off a path. The rest is as the worker escaped it.
func (p *Proxy) cutSecret(u *url.URL) (path, raw string, ok bool) {
	escaped, found := strings.CutPrefix(u.EscapedPath(), p.prefix)
	switch {
	case !found:
		return "", "", false
	case escaped == "":
		return "/", "", true
	case escaped[0] != '/':
		return "", "", false
	}
	path, err := url.PathUnescape(escaped)
	return path, escaped, err == nil
}
