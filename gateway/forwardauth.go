package gateway

import (
	"cmp"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	"crossfade/gateway/identity"
)

// Asked says in whose way a proxy asked about a request, instead of sending the
// request itself; "" for one that came itself. It is a field of the access line.
type Asked string

// The ways to ask.
const (
	// AskedNginx is the auth_request of nginx, which sends what its configuration
	// says: X-Original-URI and X-Original-Method by deploy/nginx/auth.conf,
	// X-Original-URL and X-Original-Method by the ingress controller. It takes 401
	// and 403 for a refusal and everything else but a success for a failure.
	AskedNginx Asked = "auth_request"
	// AskedForward is the forward_auth of Caddy and the ForwardAuth of Traefik,
	// which send X-Forwarded-Uri and X-Forwarded-Method and hand the answer through.
	AskedForward Asked = "forward_auth"
)

// The headers that describe the original request, in two families, as canonical
// keys. The third, X-Forwarded-For, is common to both.
const (
	originalURI     = "X-Original-Uri"
	originalURL     = "X-Original-Url"
	originalMethod  = "X-Original-Method"
	forwardedURI    = "X-Forwarded-Uri"
	forwardedMethod = "X-Forwarded-Method"
)

// question is what comes to the forward-auth endpoint. The zero value is a request
// that came itself.
type question struct {
	asked Asked
	// about is the request that is asked about, nil where that cannot be told.
	about *http.Request
	// refuse is why nothing is judged at all, in any mode: "" if it is.
	refuse identity.Reason
	// fault is a sentence about what is wrong with the question, "" for nothing. It
	// holds nothing of what a client wrote.
	fault string
}

// question reads what came. A question is a proxy's, and a proxy's word counts only
// if it is trusted: anybody else could claim any path, any method and any address.
func (h *Handler) question(r *http.Request) question {
	switch {
	case h.ForwardAuth == "":
		return question{}
	case r.URL.EscapedPath() == h.ForwardAuth && !h.Proxy.trusts(r.RemoteAddr):
		return question{refuse: identity.ProxyUntrusted}
	case r.URL.EscapedPath() == h.ForwardAuth:
		return h.Proxy.asks(r)
	case h.Proxy.upstream == nil:
		return question{
			refuse: identity.OriginalAmbiguous,
			fault:  "This gateway has no upstream: it only answers the questions of proxies, at " + h.ForwardAuth + ".",
		}
	default:
		return question{}
	}
}

// asks reads the question of a trusted proxy.
func (p *Proxy) asks(r *http.Request) question {
	method, target, asked, fault := originalOf(r.Header)
	if fault == "" {
		fault = p.beyondProxies(r.Header)
	}
	q := question{asked: asked, fault: fault}
	if fault != "" {
		return q
	}
	u, err := url.ParseRequestURI(target) // as net/http reads a request line
	if err != nil {
		q.fault = "The URI of the original request is none."
		return q
	}
	about := r.WithContext(r.Context())
	about.Method, about.URL, about.RequestURI = method, u, target
	about.Host = p.address(r).host
	about.Body, about.ContentLength, about.TransferEncoding, about.Trailer = http.NoBody, 0, nil, nil
	q.about = about
	return q
}

// problem finds in a call what the question does not allow.
func (q question) problem(c Call) Call {
	switch {
	case q.asked == "":
	case q.fault != "":
		c = Call{Action: c.Action, Problem: identity.OriginalAmbiguous}
	case c.Exempt && len(q.about.Header["Upgrade"]) > 0: // a tunnel is for someone only; see mayUpgrade
		c = Call{Action: actionOf(q.about)}
	}
	return c
}

// originalOf reads method and target of the original request from the headers of a
// question; fault is a sentence about why they cannot be told, "" if they can. It is
// pure.
//
// A header that the proxy does not set comes from the client, if the proxy hands the
// client's headers on, and they all do. So each header that could say something must
// say the same, once, and the method must come from whoever says the URI: of a proxy
// that sets one family, a client could else fill in the other.
func originalOf(h http.Header) (method, target string, asked Asked, fault string) {
	asked = AskedForward
	if h[originalURI] != nil || h[originalURL] != nil || h[forwardedURI] == nil {
		asked = AskedNginx // also what says nothing: Traefik and Caddy always do
	}
	for _, name := range []string{originalURI, originalURL, originalMethod, forwardedURI, forwardedMethod} {
		if len(h[name]) > 1 {
			return "", "", asked, name + " stands twice."
		}
	}
	uri, absolute, forwarded := h.Get(originalURI), h.Get(originalURL), h.Get(forwardedURI)
	if absolute != "" {
		if absolute = targetOf(absolute); absolute == "" {
			return "", "", asked, "X-Original-URL is no http or https URL with a path."
		}
	}
	target = cmp.Or(uri, absolute, forwarded)
	method = cmp.Or(h.Get(originalMethod), h.Get(forwardedMethod))
	for _, said := range []string{uri, absolute, forwarded} {
		if said != "" && said != target {
			return "", "", asked, "The headers differ that say the original URI."
		}
	}
	switch {
	case target == "":
		return "", "", asked, "Neither X-Original-URI nor X-Forwarded-Uri says which request it is about."
	case (uri != "" || absolute != "") && h.Get(originalMethod) == "":
		return "", "", asked, "X-Original-Method is missing beside the original URI."
	case forwarded != "" && h.Get(forwardedMethod) == "":
		return "", "", asked, "X-Forwarded-Method is missing beside X-Forwarded-Uri."
	case h.Get(forwardedMethod) != "" && h.Get(forwardedMethod) != method:
		return "", "", asked, "The headers differ that say the original method."
	case !httpguts.ValidHeaderFieldName(method): // both are tokens, RFC 9110 sections 5.6.2 and 9.1
		return "", "", asked, "The original method is none."
	case !originForm(target) && !(target == "*" && method == http.MethodOptions):
		return "", "", asked, "The original URI is no path with a query, as a request line has it."
	case !endsWithAddress(h["X-Forwarded-For"]):
		return "", "", asked, "X-Forwarded-For does not end with the address of the client."
	}
	return method, target, asked, ""
}

// targetOf returns what of an absolute URL stands in a request line, "" if it is none.
func targetOf(absolute string) string {
	rest, ok := strings.CutPrefix(absolute, "https://")
	if !ok {
		if rest, ok = strings.CutPrefix(absolute, "http://"); !ok {
			return ""
		}
	}
	slash := strings.IndexByte(rest, '/')
	if slash <= 0 {
		return "" // nginx writes at least the slash, RFC 9112 section 3.2.1
	}
	return rest[slash:]
}

// originForm reports whether a target can be that of a request line (RFC 9112 section
// 3.2.1). A fragment is none: servers differ in whether they cut it off.
func originForm(target string) bool {
	if !strings.HasPrefix(target, "/") {
		return false
	}
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c == '#' || c == 0x7f {
			return false
		}
	}
	return true
}

// endsWithAddress reports whether the last hop of X-Forwarded-For is an address: the
// one that the proxy saw. Without it all clients would share the proxy's, and be held
// up by each other's guesses.
func endsWithAddress(values []string) bool {
	if len(values) == 0 {
		return false
	}
	last := values[len(values)-1]
	_, err := netip.ParseAddr(strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:]))
	return err == nil
}

// beyondProxies finds in the client's headers what Forward would take away and a proxy
// does not, so that the upstream would see it: identity in a spelling that is another
// header to a proxy and the same one to the upstream, and an upgrade to what is not
// judged.
func (p *Proxy) beyondProxies(h http.Header) (fault string) {
	for name := range h {
		if !plainName(name) && p.spoofable.matches(name) {
			return "A header that is the proxy's to set is spelled in a way that proxies do not remove."
		}
	}
	upgrade := h["Upgrade"]
	if len(upgrade) > 1 || len(upgrade) == 1 && !strings.EqualFold(upgrade[0], "websocket") || len(h["Http2-Settings"]) > 0 {
		return "What passes through a connection of another protocol is not judged: only WebSockets are."
	}
	return ""
}

// plainName reports whether a name is of letters, digits and hyphens alone.
func plainName(name string) bool {
	for i := range len(name) {
		if c := name[i]; c != '-' && foldByte(c) == '-' {
			return false
		}
	}
	return true
}

// Answer tells a proxy that the request that it asks about may go on, and in mode
// Enforce who makes it: by the headers that Forward would have set. It has no body.
func (p *Proxy) Answer(w http.ResponseWriter, ev *Event) {
	if ev.Mode == Enforce {
		p.headers.identify(w.Header(), ev)
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
}

// statusFor is the status of a refusal as the one who asks understands it. nginx
// makes a 500 of every status of an answer but 401, 403 and successes, and writes an
// error into its log: right for what is unavailable, and wrong for what the client did.
func (a Asked) statusFor(status int) int {
	if a == AskedNginx && status < http.StatusInternalServerError && status != http.StatusUnauthorized {
		return http.StatusForbidden
	}
	return status
}
